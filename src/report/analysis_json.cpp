#include <fmt/format.h>

#include "base/macros.h"
#include "report/analysis.h"
#include "report/json_values.h"

namespace kvcast::report {
namespace {

constexpr int64_t kMost = int64_t{1} << 40;  // of anything that is counted here

nlohmann::ordered_json to_json(const CacheErrors& errors) {
  nlohmann::ordered_json json = {{"l1", to_json(errors.l1)},
                                 {"relative_l1", rounded(errors.relative_l1)},
                                 {"mean", rounded(errors.mean)},
                                 {"standard_deviation", rounded(errors.standard_deviation)},
                                 {"l1_by_position", rounded(errors.l1_by_position)}};
  if (!errors.density.counts.empty()) {
    json["density"] = {{"low", errors.density.low},
                       {"high", errors.density.high},
                       {"below", errors.density.below},
                       {"above", errors.density.above},
                       {"counts", errors.density.counts}};
  }
  return json;
}

Result<Density> parse_density(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  Density density;
  KVCAST_TRY(density.low, fields.number("low", -1e30, 1e30));
  KVCAST_TRY(density.high, fields.number("high", -1e30, 1e30));
  KVCAST_TRY(density.below, fields.integer("below", 0, kMost));
  KVCAST_TRY(density.above, fields.integer("above", 0, kMost));
  KVCAST_TRY(const Json* counts, list_at(json, "counts", where));
  KVCAST_TRY(density.counts,
             fields.integers("counts", static_cast<int64_t>(counts->size()), 0, kMost));
  if (density.counts.empty()) return fields.wrong("counts", "at least one count");
  if (density.high <= density.low) return fields.wrong("high", "more than \"low\"");
  return density;
}

Result<CacheErrors> parse_errors(const Json& layer, const std::string& key, size_t bins,
                                 const std::string& where) {
  KVCAST_TRY(const Json* json, object_at(layer, key, where));
  const std::string inside = fmt::format("{}: key \"{}\"", where, key);
  CacheErrors errors;
  KVCAST_TRY(errors.l1, parse_estimate(*json, "l1", inside));
  KVCAST_TRY(errors.relative_l1, number_or_nan(*json, "relative_l1", inside));
  KVCAST_TRY(errors.mean, number_or_nan(*json, "mean", inside));
  KVCAST_TRY(errors.standard_deviation, number_or_nan(*json, "standard_deviation", inside));
  KVCAST_TRY(errors.l1_by_position, numbers_or_nan(*json, "l1_by_position", bins, inside));
  if (json->contains("density")) {
    KVCAST_TRY(const Json* density, object_at(*json, "density", inside));
    KVCAST_TRY(errors.density, parse_density(*density, inside + ": key \"density\""));
  }
  return errors;
}

Result<LayerAnalysis> parse_layer(const Json& json, size_t bins, const std::string& where) {
  if (!json.is_object()) return fail(fmt::format("{}: expected an object", where));
  LayerAnalysis layer;
  KVCAST_TRY(layer.keys, parse_errors(json, "keys", bins, where));
  KVCAST_TRY(layer.values, parse_errors(json, "values", bins, where));
  KVCAST_TRY(layer.attention_cosine, parse_estimate(json, "attention_cosine", where));
  KVCAST_TRY(layer.attention_cosine_keys,
             parse_estimate(json, "attention_cosine_predicted_keys", where));
  KVCAST_TRY(layer.attention_cosine_values,
             parse_estimate(json, "attention_cosine_predicted_values", where));
  KVCAST_TRY(layer.attention_cosine_by_position,
             numbers_or_nan(json, "attention_cosine_by_position", bins, where));
  return layer;
}

}  // namespace

std::string to_json(const Analysis& analysis) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (size_t i = 0; i < analysis.layers.size(); ++i) {
    const LayerAnalysis& layer = analysis.layers[i];
    layers.push_back(
        {{"layer", i},
         {"keys", to_json(layer.keys)},
         {"values", to_json(layer.values)},
         {"attention_cosine", to_json(layer.attention_cosine)},
         {"attention_cosine_predicted_keys", to_json(layer.attention_cosine_keys)},
         {"attention_cosine_predicted_values", to_json(layer.attention_cosine_values)},
         {"attention_cosine_by_position", rounded(layer.attention_cosine_by_position)}});
  }
  const nlohmann::ordered_json json = {
      {"kind", "kvcast-analysis"},
      {"format", 1},
      {"commit", analysis.commit},
      {"model", {{"path", analysis.model}, {"label", analysis.label}, {"dtype", analysis.dtype}}},
      {"data", analysis.data},
      {"windows", analysis.windows},
      {"window_tokens", analysis.window_tokens},
      {"position_edges", analysis.position_edges},
      {"layers", std::move(layers)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Analysis> parse_analysis(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  KVCAST_CHECK(fields.require("format", 1));
  Analysis analysis;
  KVCAST_TRY(analysis.commit, fields.string("commit"));
  KVCAST_TRY(analysis.data, fields.string("data"));
  KVCAST_TRY(const Json* model, object_at(json, "model", where));
  const JsonFields model_fields(*model, where + ": key \"model\"");
  KVCAST_TRY(analysis.model, model_fields.string("path"));
  KVCAST_TRY(analysis.label, model_fields.string("label"));
  KVCAST_TRY(analysis.dtype, model_fields.string("dtype"));
  KVCAST_TRY(analysis.windows, fields.integer("windows", 1, kMost));
  KVCAST_TRY(analysis.window_tokens, fields.integer("window_tokens", 1, kMost));
  KVCAST_TRY(const Json* edges, list_at(json, "position_edges", where));
  KVCAST_TRY(analysis.position_edges,
             fields.integers("position_edges", static_cast<int64_t>(edges->size()), 0, kMost));
  if (edges->size() < 2) return fields.wrong("position_edges", "at least two numbers");
  KVCAST_TRY(const Json* layers, list_at(json, "layers", where));
  for (const Json& layer : *layers) {
    const std::string inside =
        fmt::format("{}: key \"layers\" entry {}", where, analysis.layers.size());
    KVCAST_TRY(auto parsed, parse_layer(layer, edges->size() - 1, inside));
    analysis.layers.push_back(std::move(parsed));
  }
  if (analysis.layers.empty()) return fields.wrong("layers", "at least one layer");
  return analysis;
}

Table to_table(const Analysis& analysis) {
  Table table;
  table.headers = {"layer",
                   "keys L1",
                   "relative",
                   "mean / σ",
                   "values L1",
                   "relative",
                   "mean / σ",
                   "attention cosine",
                   "predicted keys only",
                   "predicted values only"};
  table.text_columns = 0;
  const auto centre = [](const CacheErrors& errors) {
    return errors.standard_deviation > 0
               ? fmt::format("{:+.3f}", errors.mean / errors.standard_deviation)
               : std::string("0");
  };
  for (size_t i = 0; i < analysis.layers.size(); ++i) {
    const LayerAnalysis& layer = analysis.layers[i];
    table.rows.push_back({std::to_string(i), fmt::format("{:.4f}", layer.keys.l1.value),
                          fmt::format("{:.3f}", layer.keys.relative_l1), centre(layer.keys),
                          fmt::format("{:.4f}", layer.values.l1.value),
                          fmt::format("{:.3f}", layer.values.relative_l1), centre(layer.values),
                          fmt::format("{:.4f}", layer.attention_cosine.value),
                          fmt::format("{:.4f}", layer.attention_cosine_keys.value),
                          fmt::format("{:.4f}", layer.attention_cosine_values.value)});
  }
  return table;
}

}  // namespace kvcast::report

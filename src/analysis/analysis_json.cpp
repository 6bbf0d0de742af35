#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

#include "analysis/analysis.h"
#include "io/json.h"

namespace kvcast::analysis {
namespace {

/// A number with five significant digits, so that files stay small; NaN becomes null.
Json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.5g}", value).c_str(), nullptr);
}

Json rounded(const std::vector<double>& values) {
  Json list = Json::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

Json to_json(const Estimate& estimate) {
  return {{"value", rounded(estimate.value)},
          {"low", rounded(estimate.low)},
          {"high", rounded(estimate.high)}};
}

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

}  // namespace kvcast::analysis

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/macros.h"
#include "base/table.h"
#include "command.h"
#include "model/architectures.h"
#include "model/bundle.h"
#include "model/flops.h"
#include "models_folder.h"

namespace kvcast {
namespace {

using Json = nlohmann::ordered_json;

struct FlopsOptions {
  std::string bundle;           ///< directory; empty: named architectures
  std::string base, auxiliary;  ///< both empty: the pairs of the paper
  std::vector<int64_t> prompt_tokens = {512};
  int64_t tail = 1;
  std::string format = "md";
};

struct NamedPair {
  std::string base_name, auxiliary_name;
  ModelPair models;
};

// Method §5: the eleven pairs of the paper's Table 1 and their OpenELM-3B counterparts.
constexpr std::array<std::array<const char*, 2>, 11> kPaperPairs = {{
    {"openelm-1.1b", "openelm-450m"},
    {"openelm-1.1b", "openelm-270m"},
    {"openelm-1.1b", "openelm-1.1b-lp-0.75"},
    {"openelm-1.1b", "openelm-1.1b-lp-0.50"},
    {"openelm-1.1b", "openelm-1.1b-lp-0.25"},
    {"openelm-3b", "openelm-1.1b"},
    {"openelm-3b", "openelm-450m"},
    {"openelm-3b", "openelm-270m"},
    {"openelm-3b", "openelm-3b-lp-0.75"},
    {"openelm-3b", "openelm-3b-lp-0.50"},
    {"openelm-3b", "openelm-3b-lp-0.25"},
}};

Result<std::vector<NamedPair>> select_pairs(const FlopsOptions& options) {
  std::vector<NamedPair> pairs;
  if (!options.bundle.empty()) {
    KVCAST_TRY(const auto path, find_model(options.bundle));
    if (!is_bundle(path)) {
      return fail(
          fmt::format("{}: expected a bundle directory with a kvcast.json; for shapes "
                      "without files use --arch and --aux",
                      path.string()));
    }
    KVCAST_TRY(auto manifest, read_bundle_manifest(path));
    ModelPair models;
    KVCAST_TRY(models.base, read_model_config(manifest.base));
    KVCAST_TRY(models.auxiliary, read_model_config(manifest.auxiliary));
    models.layer_map = manifest.layer_map;
    pairs.push_back({manifest.base.string(), manifest.auxiliary.string(), std::move(models)});
  } else if (!options.base.empty()) {
    KVCAST_TRY(auto models, named_pair(options.base, options.auxiliary));
    pairs.push_back({options.base, options.auxiliary, std::move(models)});
  } else {
    for (const auto& [base, auxiliary] : kPaperPairs) {
      KVCAST_TRY(auto models, named_pair(base, auxiliary));
      pairs.push_back({base, auxiliary, std::move(models)});
    }
  }
  return pairs;
}

/// One pair at one prompt length.
struct Row {
  const NamedPair* pair = nullptr;
  int64_t prompt_tokens = 0;
  double paper_reduction = 0, approximate_exact = 0, approximate_predicted = 0;
  PrefillCost exact, predicted;

  [[nodiscard]] double reduction() const { return exact.total() / predicted.total(); }
};

Row count(const NamedPair& pair, int64_t prompt_tokens, int64_t tail) {
  const auto& [base, auxiliary, layer_map] = pair.models;
  Row row;
  row.pair = &pair;
  row.prompt_tokens = prompt_tokens;
  row.paper_reduction = paper_reduction(base, auxiliary);
  row.approximate_exact = approximate_exact_flops(base, prompt_tokens);
  row.approximate_predicted =
      approximate_kv_prediction_flops(base, auxiliary, layer_map, prompt_tokens, tail);
  row.exact = exact_cost(base, prompt_tokens);
  row.predicted = kv_prediction_cost(base, auxiliary, layer_map, prompt_tokens, tail);
  return row;
}

Json to_json(const PrefillCost& cost) {
  return {{"auxiliary", cost.auxiliary},
          {"predictor", cost.predictor},
          {"base", cost.base},
          {"lm_head", cost.lm_head},
          {"total", cost.total()}};
}

std::string to_json(const std::vector<Row>& rows, int64_t tail) {
  Json results = Json::array();
  for (const Row& row : rows) {
    const auto& [base, auxiliary, layer_map] = row.pair->models;
    results.push_back({{"base", row.pair->base_name},
                       {"auxiliary", row.pair->auxiliary_name},
                       {"layer_map", layer_map},
                       {"prompt_tokens", row.prompt_tokens},
                       {"tail", tail},
                       {"parameters",
                        {{"base", base.parameter_count()},
                         {"auxiliary", auxiliary.parameter_count()},
                         {"predictor", predictor_parameter_count(base, auxiliary, layer_map)}}},
                       {"paper_approximation",
                        {{"reduction", row.paper_reduction},
                         {"exact_flops", row.approximate_exact},
                         {"kv_prediction_flops", row.approximate_predicted}}},
                       {"exact_count",
                        {{"reduction", row.reduction()},
                         {"exact_flops", to_json(row.exact)},
                         {"kv_prediction_flops", to_json(row.predicted)}}}});
  }
  return Json{{"results", std::move(results)}}.dump(2, ' ', false, Json::error_handler_t::replace);
}

Table to_table(const std::vector<Row>& rows) {
  const auto giga = [](double flops) { return fmt::format("{:.2f}", flops * 1e-9); };
  Table table;
  table.text_columns = 2;
  table.headers = {"base",          "auxiliary",       "tokens",   "2Pn exact",
                   "2Pn kvp",       "paper reduction", "exact",    "kvp",
                   "kvp auxiliary", "kvp predictor",   "reduction"};
  for (const Row& row : rows) {
    table.rows.push_back({row.pair->base_name, row.pair->auxiliary_name,
                          std::to_string(row.prompt_tokens), giga(row.approximate_exact),
                          giga(row.approximate_predicted),
                          fmt::format("{:.2f}", row.paper_reduction), giga(row.exact.total()),
                          giga(row.predicted.total()), giga(row.predicted.auxiliary),
                          giga(row.predicted.predictor), fmt::format("{:.2f}", row.reduction())});
  }
  return table;
}

std::string explanation(int64_t tail) {
  return fmt::format(
      "\nGFLOP to the first token under exact and kv-prediction (kvp).\n"
      "2Pn, paper reduction: the paper's approximation, parameters times tokens; its reduction is\n"
      "the base's parameters over the auxiliary's.\n"
      "exact, kvp, reduction: every matrix product that is computed, attention, predictor and LM\n"
      "head included. Tail: the base runs the last {} of the prompt's tokens itself.\n",
      tail);
}

Result<int> run_flops(const FlopsOptions& options) {
  KVCAST_TRY(const auto pairs, select_pairs(options));
  std::vector<Row> rows;
  for (const NamedPair& pair : pairs) {
    for (const int64_t tokens : options.prompt_tokens) {
      rows.push_back(count(pair, tokens, options.tail));
    }
  }
  if (options.format == "json") {
    fmt::print("{}\n", to_json(rows, options.tail));
  } else if (options.format == "csv") {
    fmt::print("{}", to_table(rows).to_csv());
  } else {
    fmt::print("{}{}", to_table(rows).to_markdown(), explanation(options.tail));
  }
  return kExitOk;
}

}  // namespace

void register_flops(CLI::App& app, int& exit_code) {
  constexpr int64_t kMaxTokens = 1 << 20;
  auto options = std::make_shared<FlopsOptions>();
  CLI::App* command = app.add_subcommand(
      "flops", "prefill FLOPs of a pair: the paper's approximation and the exact count");
  auto* bundle = command->add_option("MODEL", options->bundle,
                                     "KV-prediction bundle; none: the pairs of the paper");
  auto* base = command->add_option("--arch", options->base, "base, e.g. openelm-1.1b");
  auto* auxiliary = command->add_option("--aux", options->auxiliary,
                                        "auxiliary, e.g. openelm-270m or openelm-1.1b-lp-0.50");
  base->needs(auxiliary)->excludes(bundle);
  auxiliary->needs(base)->excludes(bundle);
  command->add_option("-p,--prompt-tokens", options->prompt_tokens, "prompt lengths")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxTokens))
      ->capture_default_str();
  command->add_option("--tail", options->tail, "last prompt tokens that the base runs itself")
      ->check(CLI::Range(int64_t{1}, kMaxTokens))
      ->capture_default_str();
  command->add_option("--format", options->format, "md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str();
  command->callback([options, &exit_code] {
    const auto result = run_flops(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast

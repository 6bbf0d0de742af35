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

using OrderedJson = nlohmann::ordered_json;

struct FlopsOptions {
  std::string bundle;           ///< directory; empty: named architectures
  std::string base, auxiliary;  ///< both empty: the pairs of the paper
  std::vector<int64_t> prompt_tokens = {512};
  int64_t tail = 1;
  bool mixes = false;  ///< as under `mix=`
  std::string format = "md";
};

/// A plain model has no auxiliary: no name, no layer map.
struct NamedPair {
  std::string base_name, auxiliary_name;
  ModelPair models;

  [[nodiscard]] bool has_auxiliary() const { return !auxiliary_name.empty(); }
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
    ModelPair models;
    if (!is_bundle(path)) {
      KVCAST_TRY(models.base, read_model_config(path));
      pairs.push_back({path.string(), "", std::move(models)});
      return pairs;
    }
    KVCAST_TRY(auto manifest, read_bundle_manifest(path));
    KVCAST_TRY(models.base, read_model_config(manifest.base));
    const bool has_auxiliary = !manifest.auxiliary.empty();
    if (options.mixes && (!has_auxiliary || !manifest.shared_layers.empty())) {
      return fail(fmt::format("--mix: {} has no auxiliary that is a model", path.string()));
    }
    if (has_auxiliary) {
      KVCAST_TRY(models.auxiliary, read_model_config(manifest.auxiliary));
    }
    models.plan = manifest.plan;
    const std::string own = fmt::format("its first {} layers", manifest.plan.exact_layers);
    pairs.push_back({manifest.base.string(), has_auxiliary ? manifest.auxiliary.string() : own,
                     std::move(models)});
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

/// 0 where there is no auxiliary.
int64_t parameters_of(const ModelConfig& auxiliary) {
  return auxiliary.n_layers() == 0 ? 0 : auxiliary.parameter_count();
}

Row count(const NamedPair& pair, int64_t prompt_tokens, int64_t tail, bool mixes) {
  const auto& [base, auxiliary, plan] = pair.models;
  Row row;
  row.pair = &pair;
  row.prompt_tokens = prompt_tokens;
  row.approximate_exact = approximate_exact_flops(base, prompt_tokens);
  row.exact = exact_cost(base, prompt_tokens);
  if (!pair.has_auxiliary()) return row;
  row.approximate_predicted =
      approximate_kv_prediction_flops(base, auxiliary, plan, prompt_tokens, tail);
  row.paper_reduction = plan.exact_layers == 0 ? paper_reduction(base, auxiliary)
                                               : row.approximate_exact / row.approximate_predicted;
  row.predicted = kv_prediction_cost(base, auxiliary, plan, prompt_tokens, tail, mixes);
  return row;
}

OrderedJson to_json(const PrefillCost& cost) {
  return {{"auxiliary", cost.auxiliary},
          {"predictor", cost.predictor},
          {"base", cost.base},
          {"lm_head", cost.lm_head},
          {"total", cost.total()}};
}

/// What is known of a plain model.
OrderedJson plain_json(const Row& row) {
  return {{"base", row.pair->base_name},
          {"prompt_tokens", row.prompt_tokens},
          {"parameters", {{"base", row.pair->models.base.parameter_count()}}},
          {"paper_approximation", {{"exact_flops", row.approximate_exact}}},
          {"exact_count", {{"exact_flops", to_json(row.exact)}}}};
}

std::string to_json(const std::vector<Row>& rows, int64_t tail) {
  OrderedJson results = OrderedJson::array();
  for (const Row& row : rows) {
    if (!row.pair->has_auxiliary()) {
      results.push_back(plain_json(row));
      continue;
    }
    const auto& [base, auxiliary, plan] = row.pair->models;
    results.push_back({{"base", row.pair->base_name},
                       {"auxiliary", row.pair->auxiliary_name},
                       {"layer_map", plan.layer_map()},
                       {"prompt_tokens", row.prompt_tokens},
                       {"tail", tail},
                       {"parameters",
                        {{"base", base.parameter_count()},
                         {"auxiliary", parameters_of(auxiliary)},
                         {"predictor", predictor_parameter_count(base, auxiliary, plan)}}},
                       {"paper_approximation",
                        {{"reduction", row.paper_reduction},
                         {"exact_flops", row.approximate_exact},
                         {"kv_prediction_flops", row.approximate_predicted}}},
                       {"exact_count",
                        {{"reduction", row.reduction()},
                         {"exact_flops", to_json(row.exact)},
                         {"kv_prediction_flops", to_json(row.predicted)}}}});
  }
  return OrderedJson{{"results", std::move(results)}}.dump(2, ' ', false,
                                                           OrderedJson::error_handler_t::replace);
}

Table to_table(const std::vector<Row>& rows) {
  const auto giga = [](double flops) { return fmt::format("{:.2f}", flops * 1e-9); };
  Table table;
  table.text_columns = 2;
  table.headers = {"base",          "auxiliary",       "tokens",   "2Pn exact",
                   "2Pn kvp",       "paper reduction", "exact",    "kvp",
                   "kvp auxiliary", "kvp predictor",   "reduction"};
  for (const Row& row : rows) {
    if (!row.pair->has_auxiliary()) {
      table.rows.push_back({row.pair->base_name, "", std::to_string(row.prompt_tokens),
                            giga(row.approximate_exact), "", "", giga(row.exact.total()), "", "",
                            "", ""});
      continue;
    }
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
      rows.push_back(count(pair, tokens, options.tail, options.mixes));
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
  auto* bundle =
      command->add_option("MODEL", options->bundle,
                          "KV-prediction bundle or plain model; none: the pairs of the paper");
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
  command->add_flag("--mix", options->mixes,
                    "as under mix=: the auxiliary reads the whole prompt with all of its layers "
                    "and gives logits too");
  command->add_option("--format", options->format, "md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str();
  command->callback([options, &exit_code] {
    const auto result = run_flops(*options);
    exit_code = result ? *result : report_error(result.error());
  });
}

}  // namespace kvcast

#include "train/kvp.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "train/closed_form.h"
#include "train/data/error.h"
#include "train/flops.h"
#include "train/kvp_loss.h"
#include "train/kvp_pass.h"
#include "train/model_files.h"
#include "train/pair.h"
#include "train/preflight.h"
#include "train/pretrain.h"

namespace kvcast::train {
namespace {

KvpLossOptions loss_options(const KvpRecipe& recipe, int64_t base_layers) {
  KvpLossOptions options;
  options.lambda_base = recipe.lambda_base;
  options.lambda_auxiliary = recipe.lambda_auxiliary;
  options.lambda_consistency = recipe.lambda_consistency >= 0
                                   ? recipe.lambda_consistency
                                   : 1.0 / static_cast<double>(base_layers);
  options.lambda_kl = recipe.lambda_kl;
  options.consistency = recipe.consistency;
  options.auxiliary_kv_only_last = recipe.auxiliary_kv_only_last;
  options.cross_entropy.z_loss = recipe.optimizer.z_loss;
  return options;
}

class KvPredictionObjective : public Objective {
 public:
  /// `predictor`: start values by name.
  KvPredictionObjective(Pair pair, TensorMap predictor, const KvpRecipe& recipe,
                        const RecomputedLayers& recomputed, const at::Device& device)
      : pair_(std::move(pair)),
        predictor_start_(std::move(predictor)),
        recipe_(recipe),
        recomputed_(recomputed),
        options_(loss_options(recipe, pair_.base.config.n_layers())) {
    const int64_t tokens = recipe.data.sequence_tokens;
    const auto rope = [&](const ModelConfig& config) { return rope_table(config, tokens, device); };
    const auto compute = recipe.run.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat;
    base_ = bind_model(pair_.base.config, rope(pair_.base.config),
                       frozen(pair_.base.values, compute, device), "");
    base_.recompute_layers = recomputed.base;
    auxiliary_rope_ = rope(pair_.auxiliary.config);
  }

  [[nodiscard]] std::vector<ParameterSpec> specs() const {
    auto specs = with_prefix("auxiliary.", model_parameter_specs(pair_.auxiliary.config));
    const auto predictor = with_prefix(
        "predictor.",
        predictor_parameter_specs(pair_.base.config, pair_.auxiliary.config, pair_.layer_map));
    specs.insert(specs.end(), predictor.begin(), predictor.end());
    return specs;
  }

  /// Once: they are not kept.
  [[nodiscard]] TensorMap take_start_values() {
    TensorMap values;
    add_with_prefix(values, "auxiliary.", std::exchange(pair_.auxiliary.values, {}));
    add_with_prefix(values, "predictor.", std::exchange(predictor_start_, {}));
    return values;
  }

  ObjectiveLoss loss(const TensorMap& views, const MicroBatch& batch) override {
    Model auxiliary = bind_model(pair_.auxiliary.config, auxiliary_rope_, views, "auxiliary.");
    auxiliary.recompute_layers = recomputed_.auxiliary;
    const Predictor predictor = bind_predictor(pair_.layer_map, views, "predictor.");
    const KvpPass pass = kvp_pass_at(recipe_, batch.step);
    const KvpLosses losses =
        kvp_loss(base_, auxiliary, predictor, batch.input_ids, batch.targets, options_, pass);
    ObjectiveLoss result{losses.total, losses.base.cross_entropy, {{"loss", losses.total}}};
    Tensor z_loss = losses.base.z_loss;
    result.terms.emplace_back("base", losses.base.cross_entropy);
    if (losses.auxiliary.total.defined()) {
      result.terms.emplace_back("auxiliary", losses.auxiliary.cross_entropy);
      z_loss = z_loss + losses.auxiliary.z_loss;
    }
    if (losses.kl.defined()) result.terms.emplace_back("kl", losses.kl);
    const auto add_mean = [&](const char* name, const Tensor& layers) {
      if (layers.defined()) result.terms.emplace_back(name, layers.mean());
    };
    add_mean("keys", losses.key_consistency);
    add_mean("values", losses.value_consistency);
    add_mean("attention", losses.attention_consistency);
    result.terms.emplace_back("z_loss", z_loss);
    return result;
  }

  void write(const std::filesystem::path& directory, const std::filesystem::path& final_directory,
             const TensorMap& values, const StoreOptions& store, bool checkpoint,
             const Json& about) const override {
    Json training = about;
    training["method"] = method_name(recipe_.pair);
    training["lambda_base"] = options_.lambda_base;
    training["lambda_auxiliary"] = options_.lambda_auxiliary;
    training["lambda_consistency"] = options_.lambda_consistency;
    training["lambda_kl"] = options_.lambda_kl;
    training["split_share"] = recipe_.split_share;
    training["predictor_init"] = recipe_.ridge_init ? "ridge" : "default";
    write_bundle(directory, final_directory,
                 {.pair = pair_,
                  .recipe = recipe_.pair,
                  .auxiliary = without_prefix(values, "auxiliary."),
                  .predictor = without_prefix(values, "predictor."),
                  .store = store,
                  .copy_base = recipe_.pair.copy_base && !checkpoint,
                  .training = training});
  }

  [[nodiscard]] TensorMap read(const std::filesystem::path& directory) const override {
    const LoadedBundle bundle = load_bundle(directory);
    if (bundle.manifest.plan.layer_map() != pair_.layer_map) {
      throw TrainError(fmt::format("{}: layer map {}, the recipe's is {}", directory.string(),
                                   fmt::join(bundle.manifest.plan.layer_map(), " "),
                                   fmt::join(pair_.layer_map, " ")));
    }
    TensorMap values;
    add_with_prefix(values, "auxiliary.", bundle.auxiliary.values);
    add_with_prefix(values, "predictor.", bundle.predictor);
    return values;
  }

  [[nodiscard]] double flops_per_token() const override {
    return kvp_flops(pair_.base.config, pair_.auxiliary.config, pair_.layer_map, recipe_);
  }

  [[nodiscard]] const Pair& pair() const { return pair_; }

 private:
  Pair pair_;
  TensorMap predictor_start_;
  const KvpRecipe& recipe_;
  RecomputedLayers recomputed_;
  KvpLossOptions options_;
  Model base_;
  RopeTable auxiliary_rope_;
};

/// The predictor to start from; chooses the layer map where the recipe asks for that. A resumed run
/// takes both from its checkpoint, so nothing is fitted again.
TensorMap start_predictor(Pair& pair, const KvpRecipe& recipe, const WindowSampler& sampler,
                          const TrainControl& control) {
  const bool choose_map = recipe.pair.layer_map.empty() &&
                          recipe.pair.layer_map_rule != PairRecipe::LayerMapRule::kPaper;
  const bool resumed = control.resume && std::filesystem::exists(recipe.output.checkpoint);
  if (resumed && choose_map) {
    pair.layer_map = unwrap(read_bundle_manifest(recipe.output.checkpoint)).plan.layer_map();
  }
  if (!resumed && (recipe.ridge_init || choose_map)) {
    ClosedForm fit = fit_closed_form(pair, recipe.pair, recipe.ridge, sampler, control.device);
    if (recipe.ridge_init) return std::move(fit.predictor);
  }
  return initial_values(
      predictor_parameter_specs(pair.base.config, pair.auxiliary.config, pair.layer_map),
      recipe.run.seed);
}

}  // namespace

TrainOutcome train_kvp(const KvpRecipe& recipe, const TrainControl& control) {
  const WindowSampler sampler(recipe.data, recipe.run.seed);
  check_pair(recipe.pair, recipe.data, sampler.index());
  const auto compute = control.parameters(recipe.run).compute;
  Pair pair = load_pair(recipe.pair, {.dtype = compute, .device = control.device});
  TensorMap predictor = start_predictor(pair, recipe, sampler, control);
  const TrainingPlan plan = plan_kvp(pair.base.config, pair.auxiliary.config, pair.layer_map,
                                     recipe, control.plan_device());
  KvPredictionObjective objective(std::move(pair), std::move(predictor), recipe, plan.recomputed,
                                  control.device);
  FlatParameters parameters(objective.specs(), objective.take_start_values(), control.device,
                            control.parameters(recipe.run));
  if (!control.quiet) {
    fmt::print(stderr, "kvp     layer map {}  on {}\n{}",
               fmt::join(objective.pair().layer_map, " "), control.device.str(), describe(plan));
  }
  return train(objective, parameters,
               {recipe.run, recipe.optimizer, recipe.output, sampler, control});
}

}  // namespace kvcast::train

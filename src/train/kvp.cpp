#include "train/kvp.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "train/data/error.h"
#include "train/kvp_loss.h"
#include "train/model_files.h"
#include "train/pretrain.h"

namespace kvcast::train {
namespace {

/// The two models and how they are connected, before training.
struct Pair {
  LoadedModel base, auxiliary;
  std::vector<int64_t> layer_map;
};

/// KVP-LP: the kept layers of the base, renumbered; everything else as it is.
LoadedModel layer_pruned(const LoadedModel& base, const std::vector<int64_t>& kept) {
  LoadedModel pruned{.config = prune_layers(base.config, kept), .values = {}};
  for (const auto& [name, value] : base.values) {
    if (!name.starts_with("layers.")) pruned.values.emplace(name, value);
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    const TensorMap layer = without_prefix(base.values, "layers." + std::to_string(kept[i]) + ".");
    add_with_prefix(pruned.values, "layers." + std::to_string(i) + ".", layer);
  }
  return pruned;
}

Pair load_pair(const KvpRecipe& recipe) {
  Pair pair;
  pair.base = load_model(recipe.base);
  const int64_t n_base = pair.base.config.n_layers();
  if (recipe.keep.empty()) {
    pair.auxiliary = load_model(recipe.auxiliary);
    pair.layer_map = canonical_layer_map(n_base, pair.auxiliary.config.n_layers());
  } else {
    const auto kept = unwrap(layer_pruned_kept_layers(n_base, recipe.keep));
    pair.auxiliary = layer_pruned(pair.base, kept);
    pair.layer_map = layer_pruned_layer_map(n_base, kept);
  }
  if (!recipe.layer_map.empty()) pair.layer_map = recipe.layer_map;
  unwrap(check_layer_map(pair.layer_map, pair.base.config, pair.auxiliary.config, "kvp.layer_map"));
  if (pair.base.config.vocab_size != pair.auxiliary.config.vocab_size) {
    throw TrainError(fmt::format(
        "{}: a vocabulary of {}, the base has {}; both need the same "
        "tokenizer",
        recipe.auxiliary.string(), pair.auxiliary.config.vocab_size, pair.base.config.vocab_size));
  }
  return pair;
}

class KvPredictionObjective : public Objective {
 public:
  KvPredictionObjective(Pair pair, const KvpRecipe& recipe, const at::Device& device)
      : pair_(std::move(pair)), recipe_(recipe) {
    const int64_t tokens = recipe.data.sequence_tokens;
    const auto rope = [&](const ModelConfig& config) {
      return make_rope_table(tokens, config.head_dim, config.rope_theta, device);
    };
    const auto compute = recipe.run.precision == Precision::kBF16 ? at::kBFloat16 : at::kFloat;
    base_ = bind_model(pair_.base.config, rope(pair_.base.config),
                       frozen(pair_.base.values, compute, device), "");
    auxiliary_rope_ = rope(pair_.auxiliary.config);
    options_.lambda_base = recipe.lambda_base;
    options_.lambda_auxiliary = recipe.lambda_auxiliary;
    options_.lambda_consistency = recipe.lambda_consistency >= 0
                                      ? recipe.lambda_consistency
                                      : 1.0 / static_cast<double>(pair_.base.config.n_layers());
    options_.cross_entropy.z_loss = recipe.optimizer.z_loss;
  }

  [[nodiscard]] std::vector<ParameterSpec> specs() const {
    auto specs = with_prefix("auxiliary.", model_parameter_specs(pair_.auxiliary.config));
    const auto predictor = with_prefix("predictor.", predictor_specs());
    specs.insert(specs.end(), predictor.begin(), predictor.end());
    return specs;
  }

  [[nodiscard]] TensorMap start_values() const {
    TensorMap values;
    add_with_prefix(values, "auxiliary.", pair_.auxiliary.values);
    add_with_prefix(values, "predictor.", initial_values(predictor_specs(), recipe_.run.seed));
    return values;
  }

  ObjectiveLoss loss(const TensorMap& views, const Tensor& input_ids,
                     const Tensor& targets) override {
    const Model auxiliary =
        bind_model(pair_.auxiliary.config, auxiliary_rope_, views, "auxiliary.");
    const Predictor predictor = bind_predictor(pair_.layer_map, views, "predictor.");
    const KvpLosses losses = kvp_loss(base_, auxiliary, predictor, input_ids, targets, options_);
    return {losses.total,
            {{"loss", losses.total},
             {"base", losses.base.cross_entropy},
             {"auxiliary", losses.auxiliary.cross_entropy},
             {"keys", losses.key_consistency.mean()},
             {"values", losses.value_consistency.mean()},
             {"z_loss", losses.base.z_loss + losses.auxiliary.z_loss}}};
  }

  void write(const std::filesystem::path& directory, const std::filesystem::path& final_directory,
             const TensorMap& values, DType dtype, bool checkpoint,
             const Json& about) const override {
    ManifestToWrite manifest;
    manifest.layer_map = pair_.layer_map;
    if (recipe_.copy_base && !checkpoint) {
      write_model(directory / "base", pair_.base.config, pair_.base.values, dtype, recipe_.base);
    } else {
      manifest.base =
          std::filesystem::absolute(recipe_.base)
              .lexically_normal()
              .lexically_proximate(std::filesystem::absolute(final_directory).lexically_normal())
              .string();
    }
    write_model(directory / "auxiliary", pair_.auxiliary.config,
                without_prefix(values, "auxiliary."), dtype, recipe_.base);
    write_tensors(directory / manifest.predictor, without_prefix(values, "predictor."), dtype,
                  {{"format", "pt"}});
    Json training = about;
    training["method"] = recipe_.keep.empty() ? "KVP-C" : "KVP-LP-" + recipe_.keep;
    training["lambda_base"] = options_.lambda_base;
    training["lambda_auxiliary"] = options_.lambda_auxiliary;
    training["lambda_consistency"] = options_.lambda_consistency;
    manifest.extra["training"] = training;
    write_manifest(directory, manifest);
  }

  [[nodiscard]] TensorMap read(const std::filesystem::path& directory) const override {
    const LoadedBundle bundle = load_bundle(directory);
    TensorMap values;
    add_with_prefix(values, "auxiliary.", bundle.auxiliary.values);
    add_with_prefix(values, "predictor.", bundle.predictor);
    return values;
  }

  /// The auxiliary forward and backward; the base forward twice (the exact pass has no LM head) and
  /// backward to its inputs only, which costs as much as forward.
  [[nodiscard]] double flops_per_token() const override {
    const int64_t tokens = recipe_.data.sequence_tokens;
    const auto auxiliary = forward_flops(pair_.auxiliary.config, tokens);
    const auto base = forward_flops(pair_.base.config, tokens);
    return 3.0 * (auxiliary.layers + auxiliary.lm_head) + 3.0 * base.layers + 2.0 * base.lm_head;
  }

  [[nodiscard]] const Pair& pair() const { return pair_; }

 private:
  [[nodiscard]] std::vector<ParameterSpec> predictor_specs() const {
    return predictor_parameter_specs(pair_.base.config, pair_.auxiliary.config, pair_.layer_map);
  }

  Pair pair_;
  const KvpRecipe& recipe_;
  Model base_;
  RopeTable auxiliary_rope_;
  KvpLossOptions options_;
};

}  // namespace

TrainOutcome train_kvp(const KvpRecipe& recipe, const TrainControl& control) {
  const WindowSampler sampler(recipe.data, recipe.run.seed);
  KvPredictionObjective objective(load_pair(recipe), recipe, control.device);
  check_fits(objective.pair().base.config, recipe.data, sampler.index());
  check_fits(objective.pair().auxiliary.config, recipe.data, sampler.index());
  FlatParameters parameters(objective.specs(), objective.start_values(), control.device);
  if (!control.quiet) {
    fmt::print(stderr,
               "kvp  {:.2f}M parameters trained  base {:.2f}M frozen  layer map {}  on {}\n",
               static_cast<double>(parameters.count()) / 1e6,
               static_cast<double>(objective.pair().base.config.parameter_count()) / 1e6,
               fmt::join(objective.pair().layer_map, " "), control.device.str());
  }
  return train(objective, parameters,
               {recipe.run, recipe.optimizer, recipe.output, sampler, control});
}

}  // namespace kvcast::train

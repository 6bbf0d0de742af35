#include "train/pretrain.h"

#include <fmt/format.h>

#include "model/architectures.h"
#include "train/cross_entropy.h"
#include "train/data/error.h"
#include "train/flops.h"
#include "train/model_files.h"
#include "train/pair.h"
#include "train/preflight.h"

namespace kvcast::train {
namespace {

/// The parts that the recipes of both commands share, and what differs.
struct NextTokenRun {
  const DataRecipe& data;
  const OptimizerRecipe& optimizer;
  const RunRecipe& run;
  const OutputRecipe& output;
  std::filesystem::path tokenizer_from;  ///< directory whose tokenizer the result gets
  std::string method;                    ///< for training.json
  int64_t recompute_layers = 0;
};

class NextTokenObjective : public Objective {
 public:
  NextTokenObjective(ModelConfig config, NextTokenRun run, const at::Device& device)
      : config_(std::move(config)),
        run_(std::move(run)),
        rope_(rope_table(config_, run_.data.sequence_tokens, device)) {
    cross_entropy_.z_loss = run_.optimizer.z_loss;
  }

  ObjectiveLoss loss(const TensorMap& views, const MicroBatch& batch) override {
    Model model = bind_model(config_, rope_, views, "");
    model.recompute_layers = run_.recompute_layers;
    const Tensor hidden = forward(model, batch.input_ids).flatten(0, 1);
    const CrossEntropy loss =
        linear_cross_entropy(hidden, model.lm_head, batch.targets.flatten(), cross_entropy_);
    return {
        loss.total, loss.cross_entropy, {{"loss", loss.cross_entropy}, {"z_loss", loss.z_loss}}};
  }

  void write(const std::filesystem::path& directory, const std::filesystem::path&,
             const TensorMap& values, const StoreOptions& store, bool,
             const Json& about) const override {
    write_model(directory, config_, values, store, run_.tokenizer_from);
    Json json = about;
    json["method"] = run_.method;
    json["parameters"] = config_.parameter_count();
    write_json(directory / "training.json", json);
  }

  [[nodiscard]] TensorMap read(const std::filesystem::path& directory) const override {
    return load_model(directory).values;
  }

  [[nodiscard]] double flops_per_token() const override {
    return next_token_flops(config_, run_.data.sequence_tokens);
  }

 private:
  ModelConfig config_;
  NextTokenRun run_;
  RopeTable rope_;
  CrossEntropyOptions cross_entropy_;
};

ModelConfig config_from_recipe(const ModelRecipe& model, const ShardIndex& index) {
  ModelConfig config = make_openelm_config({.n_layers = model.layers,
                                            .model_dim = model.model_dim,
                                            .head_dim = model.head_dim,
                                            .gqa_groups = model.gqa_groups,
                                            .ffn_dim_divisor = model.ffn_dim_divisor,
                                            .vocab_size = index.vocab_size,
                                            .max_context_tokens = model.max_context_tokens});
  config.bos_token = index.bos_token;
  config.eos_tokens = {index.eos_token};
  return config;
}

TrainOutcome train_next_tokens(const LoadedModel& model, const WindowSampler& sampler,
                               NextTokenRun run, const TrainControl& control) {
  check_fits(model.config, run.data, sampler.index());
  const TrainingPlan plan =
      plan_next_tokens(model.config, run.run, run.data, control.plan_device());
  run.recompute_layers = plan.recomputed.auxiliary;
  FlatParameters parameters(model_parameter_specs(model.config), model.values, control.device,
                            control.parameters(run.run));
  NextTokenObjective objective(model.config, run, control.device);
  if (!control.quiet) {
    fmt::print(stderr, "{}  {:.1f}M tokens a pass  on {}\n{}", run.method,
               static_cast<double>(sampler.samples_per_pass() * run.data.sequence_tokens) / 1e6,
               control.device.str(), describe(plan));
  }
  return train(objective, parameters, {run.run, run.optimizer, run.output, sampler, control});
}

}  // namespace

TrainOutcome pretrain(const PretrainRecipe& recipe, const TrainControl& control) {
  const WindowSampler sampler(recipe.data, recipe.run.seed);
  LoadedModel model;
  if (recipe.model.start.empty()) {
    model.config = config_from_recipe(recipe.model, sampler.index());
    model.values = initial_values(model_parameter_specs(model.config), recipe.run.seed);
  } else {
    check_model(recipe.model.start, recipe.data, sampler.index());
    model = load_model(recipe.model.start);
  }
  return train_next_tokens(
      model, sampler,
      {recipe.data, recipe.optimizer, recipe.run, recipe.output, recipe.data.shards, "pretrain", 0},
      control);
}

TrainOutcome train_alone(const AloneRecipe& recipe, const TrainControl& control) {
  const WindowSampler sampler(recipe.data, recipe.run.seed);
  check_model(recipe.keep.empty() ? recipe.auxiliary : recipe.base, recipe.data, sampler.index());
  const LoadedModel model = recipe.keep.empty() ? load_model(recipe.auxiliary)
                                                : load_layer_pruned(recipe.base, recipe.keep);
  return train_next_tokens(model, sampler,
                           {recipe.data, recipe.optimizer, recipe.run, recipe.output,
                            recipe.keep.empty() ? recipe.auxiliary : recipe.base, "alone", 0},
                           control);
}

}  // namespace kvcast::train

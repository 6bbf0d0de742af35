#include "plan_command.h"

#include <fmt/format.h>

#include "model/architectures.h"
#include "train/data/error.h"
#include "train/plan.h"

namespace kvcast::train {
namespace {

/// A model's shape: an architecture's by its name, or what a model directory says.
ModelConfig shape_of(const std::string& architecture, const std::filesystem::path& directory) {
  return architecture.empty() ? unwrap(read_model_config(directory))
                              : unwrap(named_architecture(architecture));
}

TrainingPlan kvp_plan(const PlanArguments& arguments, const PlanDevice& device) {
  const KvpRecipe recipe = read_kvp_recipe(arguments.recipe.recipe, arguments.recipe.settings());
  const PairRecipe& pair = recipe.pair;
  const ModelConfig base = shape_of(arguments.base, pair.base);
  const int64_t n_base = base.n_layers();
  if (pair.keep.empty()) {
    const ModelConfig auxiliary = shape_of(arguments.auxiliary, pair.auxiliary);
    const auto map =
        pair.layer_map.empty() ? canonical_layer_map(n_base, auxiliary.n_layers()) : pair.layer_map;
    return plan_kvp(base, auxiliary, map, recipe, device);
  }
  const auto kept = unwrap(layer_pruned_kept_layers(n_base, pair.keep));
  return plan_kvp(base, prune_layers(base, kept), layer_pruned_layer_map(n_base, kept), recipe,
                  device);
}

TrainingPlan alone_plan(const PlanArguments& arguments, const PlanDevice& device) {
  const AloneRecipe recipe =
      read_alone_recipe(arguments.recipe.recipe, arguments.recipe.settings());
  ModelConfig model;
  if (recipe.keep.empty()) {
    model = shape_of(arguments.auxiliary, recipe.auxiliary);
  } else {
    const ModelConfig base = shape_of(arguments.base, recipe.base);
    model = prune_layers(base, unwrap(layer_pruned_kept_layers(base.n_layers(), recipe.keep)));
  }
  return plan_next_tokens(model, recipe.run, recipe.data, device);
}

TrainingPlan pretrain_plan(const PlanArguments& arguments, const PlanDevice& device) {
  const PretrainRecipe recipe =
      read_pretrain_recipe(arguments.recipe.recipe, arguments.recipe.settings());
  const ModelRecipe& shape = recipe.model;
  ModelConfig model;
  if (!arguments.base.empty() || !shape.start.empty()) {
    model = shape_of(arguments.base, shape.start);
  } else {
    model = make_openelm_config({.n_layers = shape.layers,
                                 .model_dim = shape.model_dim,
                                 .head_dim = shape.head_dim,
                                 .gqa_groups = shape.gqa_groups,
                                 .ffn_dim_divisor = shape.ffn_dim_divisor,
                                 .max_context_tokens = shape.max_context_tokens});
  }
  return plan_next_tokens(model, recipe.run, recipe.data, device);
}

}  // namespace

void PlanArguments::add_to(CLI::App& command) {
  recipe.add_to(command);
  command.add_option("--gpus", gpus, "How many")->check(CLI::Range(1, 1 << 16));
  command.add_option("--gpu", gpu, "Which: " + known_gpus())->capture_default_str();
  command.add_option("--base", base, "The base's architecture, e.g. openelm-1.1b, without weights");
  command.add_option("--auxiliary", auxiliary, "Likewise the auxiliary's");
  command.add_flag("--json", json, "One JSON object instead of lines");
}

int run_plan(const PlanArguments& arguments) {
  const auto gpu = find_gpu(arguments.gpu);
  if (!gpu) {
    throw TrainError(fmt::format("--gpu {}: expected one of {}", arguments.gpu, known_gpus()));
  }
  const PlanDevice device{gpu, arguments.gpus};
  TrainingPlan plan;
  switch (recipe_kind(arguments.recipe.recipe, arguments.recipe.settings())) {
    case RecipeKind::kKvp:
      plan = kvp_plan(arguments, device);
      break;
    case RecipeKind::kAlone:
      plan = alone_plan(arguments, device);
      break;
    case RecipeKind::kPretrain:
      plan = pretrain_plan(arguments, device);
      break;
  }
  fmt::print("{}", arguments.json ? to_json(plan).dump(1) + "\n" : describe(plan));
  return 0;
}

}  // namespace kvcast::train

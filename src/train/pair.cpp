#include "train/pair.h"

#include <fmt/format.h>

#include "model/architectures.h"
#include "model/checkpoint.h"
#include "train/data/error.h"

namespace kvcast::train {

LoadedModel load_layer_pruned(const std::filesystem::path& base, const std::string& keep) {
  const int64_t n_base = unwrap(open_checkpoint(base)).config.n_layers();
  const auto kept = unwrap(layer_pruned_kept_layers(n_base, keep));
  const LoadedModel whole = load_model(base, {.layers = kept});
  LoadedModel pruned{.config = prune_layers(whole.config, kept), .values = {}};
  for (const auto& [name, value] : whole.values) {
    if (!name.starts_with("layers.")) pruned.values.emplace(name, value);
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    const TensorMap layer = without_prefix(whole.values, "layers." + std::to_string(kept[i]) + ".");
    add_with_prefix(pruned.values, "layers." + std::to_string(i) + ".", layer);
  }
  return pruned;
}

Pair load_pair(const PairRecipe& recipe, const LoadOptions& frozen_base) {
  Pair pair;
  if (recipe.keep.empty()) {
    LoadedModels models = load_models(recipe.base, recipe.auxiliary, frozen_base);
    pair.base = std::move(models.base);
    pair.auxiliary = std::move(models.auxiliary);
    const int64_t n_base = pair.base.config.n_layers();
    pair.layer_map = canonical_layer_map(n_base, pair.auxiliary.config.n_layers());
  } else {
    pair.base = load_model(recipe.base, frozen_base);
    const int64_t n_base = pair.base.config.n_layers();
    pair.auxiliary = load_layer_pruned(recipe.base, recipe.keep);
    pair.layer_map =
        layer_pruned_layer_map(n_base, unwrap(layer_pruned_kept_layers(n_base, recipe.keep)));
  }
  if (!recipe.layer_map.empty()) pair.layer_map = recipe.layer_map;
  unwrap(check_layer_map(pair.layer_map, pair.base.config, pair.auxiliary.config, "layer_map"));
  return pair;
}

void write_bundle(const std::filesystem::path& directory,
                  const std::filesystem::path& final_directory, const BundleToWrite& bundle) {
  ManifestToWrite manifest;
  manifest.layer_map = bundle.pair.layer_map;
  const auto& base = bundle.recipe.base;
  if (bundle.copy_base) {
    // Training may have rounded what it kept.
    const LoadedModel whole = load_model(base, {.tokens = bundle.pair.base.config.vocab_size});
    write_model(directory / "base", whole.config, whole.values, bundle.store, base);
  } else {
    const auto normal = [](const std::filesystem::path& path) {
      return std::filesystem::absolute(path).lexically_normal();
    };
    manifest.base = normal(base).lexically_proximate(normal(final_directory)).string();
  }
  write_model(directory / "auxiliary", bundle.pair.auxiliary.config, bundle.auxiliary, bundle.store,
              base);
  write_tensors(directory / manifest.predictor, bundle.predictor, bundle.store.dtype,
                {{"format", "pt"}});
  manifest.extra["training"] = bundle.training;
  write_manifest(directory, manifest);
}

std::string method_name(const PairRecipe& recipe) {
  return recipe.keep.empty() ? "KVP-C" : "KVP-LP-" + recipe.keep;
}

}  // namespace kvcast::train

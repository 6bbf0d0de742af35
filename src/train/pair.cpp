#include "train/pair.h"

#include <fmt/format.h>

#include "model/architectures.h"
#include "model/model_text.h"
#include "train/data/error.h"

namespace kvcast::train {

LoadedModel layer_pruned(const LoadedModel& base, const std::string& keep) {
  const auto kept = unwrap(layer_pruned_kept_layers(base.config.n_layers(), keep));
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

namespace {

void check_tokenizers(const PairRecipe& recipe) {
  const int64_t base = unwrap(read_model_config(recipe.base)).vocab_size;
  const int64_t auxiliary = unwrap(read_model_config(recipe.auxiliary)).vocab_size;
  unwrap(check_same_tokens({recipe.base, base}, {recipe.auxiliary, auxiliary}, "auxiliary"));
}

}  // namespace

Pair load_pair(const PairRecipe& recipe) {
  Pair pair;
  if (recipe.keep.empty()) {
    check_tokenizers(recipe);
    LoadedModels models = load_models(recipe.base, recipe.auxiliary);
    pair.base = std::move(models.base);
    pair.auxiliary = std::move(models.auxiliary);
    const int64_t n_base = pair.base.config.n_layers();
    pair.layer_map = canonical_layer_map(n_base, pair.auxiliary.config.n_layers());
  } else {
    pair.base = load_model(recipe.base);
    const int64_t n_base = pair.base.config.n_layers();
    pair.auxiliary = layer_pruned(pair.base, recipe.keep);
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
    write_model(directory / "base", bundle.pair.base.config, bundle.pair.base.values, bundle.store,
                base);
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

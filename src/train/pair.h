// A base, an auxiliary, and which auxiliary layer each base layer reads: what `kvp` and `ridge`
// start from and the bundles they write.
#pragma once

#include <filesystem>
#include <vector>

#include "train/data/recipe.h"
#include "train/model_files.h"

namespace kvcast::train {

struct Pair {
  LoadedModel base, auxiliary;
  std::vector<int64_t> layer_map;  ///< [base layers] -> auxiliary layer
};

/// KVP-LP: the kept layers of the base ("0.75", "0.50", "0.25"), renumbered; f32, on the CPU.
LoadedModel load_layer_pruned(const std::filesystem::path& base, const std::string& keep);

/// Loads both models, the base as `frozen_base` says, the auxiliary in f32 on the CPU; the layer
/// map is the recipe's, or by the paper's rule (method §5; the ridge rules need data: ridge.h).
Pair load_pair(const PairRecipe& recipe, const LoadOptions& frozen_base = {});

/// Writes a bundle into the existing `directory`, which will be renamed to `final_directory`:
/// `auxiliary` and `predictor` named as the models' and predictor's parameter specs have them. The
/// base is read again and copied if `copy_base`, otherwise named by its path from final_directory.
/// `training` says in kvcast.json how it was made.
struct BundleToWrite {
  const Pair& pair;
  const PairRecipe& recipe;
  const TensorMap& auxiliary;
  const TensorMap& predictor;
  StoreOptions store;
  bool copy_base;
  Json training;
};
void write_bundle(const std::filesystem::path& directory,
                  const std::filesystem::path& final_directory, const BundleToWrite& bundle);

/// "KVP-C" or "KVP-LP-0.50".
std::string method_name(const PairRecipe& recipe);

}  // namespace kvcast::train

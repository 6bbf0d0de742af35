// Which pass of the base a training step of `kvp` runs: drawn without state, so that a resumed run
// and every process of a distributed one agree.
#pragma once

#include "train/data/recipe.h"
#include "train/kvp_loss.h"

namespace kvcast::train {

/// A function of (recipe, step) alone. Steps of the two kinds are spread evenly at split_share;
/// the splits of successive steps follow the golden-ratio sequence, which covers the range more
/// evenly than independent draws. They fall on sixteenths of the sequence: few shapes, so that a
/// GPU's allocator and kernels see the same ones again.
KvpPass kvp_pass_at(const KvpRecipe& recipe, int64_t step);

/// The mean share of the sequence that the base runs in a step's differentiated pass.
double mean_base_share(const KvpRecipe& recipe);

/// The mean share of it that an auxiliary reads which is only asked for what is predicted.
double mean_read_share(const KvpRecipe& recipe);

}  // namespace kvcast::train

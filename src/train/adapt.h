// `adapt`: a forecast for a model that is there, from its own first layers and a few trained ones.
#pragma once

#include "train/data/recipe.h"
#include "train/trainer.h"

namespace kvcast::train {

/// Fits the maps in closed form, trains them and the layers, writes a bundle of format 2 that names
/// the base by its path (docs/FORMAT.md).
TrainOutcome train_adapt(const AdaptRecipe& recipe, const TrainControl& control);

}  // namespace kvcast::train

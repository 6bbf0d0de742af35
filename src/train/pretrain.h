// `pretrain` and `alone`: next-token prediction for one OpenELM-shaped model.
#pragma once

#include "train/trainer.h"

namespace kvcast::train {

/// A new model, or one to go on from.
TrainOutcome pretrain(const PretrainRecipe& recipe, const TrainControl& control);

/// The control of KV prediction: its auxiliary trained by itself on the same tokens.
TrainOutcome train_alone(const AloneRecipe& recipe, const TrainControl& control);

}  // namespace kvcast::train

// `kvp`: trains auxiliary and predictor for a frozen base (method §4).
#pragma once

#include "train/trainer.h"

namespace kvcast::train {

TrainOutcome train_kvp(const KvpRecipe& recipe, const TrainControl& control);

}  // namespace kvcast::train

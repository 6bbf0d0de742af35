// What a run starts from, checked before any weight is read.
#pragma once

#include "train/data/recipe.h"
#include "train/data/shard_index.h"
#include "train/model_files.h"

namespace kvcast::train {

/// Throws TrainError naming file, tensor and what was expected unless every weight of the model is
/// there in its shape and it can be trained on these shards: their vocabulary, its tokenizer, its
/// context.
void check_model(const std::filesystem::path& model, const DataRecipe& data,
                 const ShardIndex& index);

/// check_model of both, and that they and their layer map fit each other.
void check_pair(const PairRecipe& pair, const DataRecipe& data, const ShardIndex& index);

}  // namespace kvcast::train

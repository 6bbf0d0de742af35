// Where the forecast prefix of each sequence of a batch ends, for `adapt`.
#pragma once

#include "train/data/recipe.h"
#include "train/torch.h"

namespace kvcast::train {

/// For token ids [B, T], the first position of each sequence that has the base's own keys and
/// values: [B] int64 on the ids' device, 1 to T - 1. A share of recipe.prompt_end_share of the
/// sequences that hold recipe.prompt_end has it at the last token of one of these, drawn by chance,
/// as where a prompt ends; the others anywhere between split_from and split_to of the sequence. A
/// function of (recipe, step, ids); never waits for the device.
Tensor sequence_splits(const AdaptRecipe& recipe, int64_t step, const Tensor& ids);

}  // namespace kvcast::train

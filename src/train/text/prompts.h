// `prompts`: instructions around pieces of text, for a base to answer.
#pragma once

#include "train/data/recipe.h"

namespace kvcast::train {

struct PromptsReport {
  int64_t prompts = 0, tokens = 0;
};

/// Writes recipe.output: `tokens` [n] of all prompts one after another, in the model's chat
/// template with the answer's opening, and `ends` [prompts], both I64. Documents are taken in
/// turns from all sources, a piece of each, an instruction by chance; deterministic by seed.
PromptsReport write_prompts(const PromptsRecipe& recipe);

}  // namespace kvcast::train

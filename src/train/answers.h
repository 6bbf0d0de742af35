// `answers`: the base answers prompts, many at once; what it wrote becomes a source of shards.
#pragma once

#include "train/data/recipe.h"
#include "train/model.h"

namespace kvcast::train {

struct AnswersReport {
  int64_t chats = 0, tokens = 0;
  double seconds = 0.0;
};

/// Adds recipe.source to the shards' index (or replaces it there): blocks of sequence_tokens, each
/// beginning with a chat, filled with chats, the last one cut. Batches are of prompts of about one
/// length. Ends early when max_minutes are over; then some prompts stay unanswered.
AnswersReport write_answers(const AnswersRecipe& recipe, const at::Device& device, bool quiet);

/// prompts [B][..] -> prompts and answers, which end with `eos` or after answer_tokens. Sampled at
/// `temperature` (0: the most likely token).
std::vector<std::vector<int32_t>> answer(const Model& model,
                                         const std::vector<std::vector<int32_t>>& prompts,
                                         int64_t answer_tokens, double temperature, int32_t eos);

}  // namespace kvcast::train

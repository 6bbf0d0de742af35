#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace kvcast {

/// What a request says about single tokens of its answer, beside how they are sampled.
struct TokenRules {
  /// Taken from the logits of tokens that the answer holds so far, as in OpenAI's API.
  float presence_penalty = 0.0F;
  /// The same, once for each time that the token is in the answer.
  float frequency_penalty = 0.0F;
  /// Added to the logits of these tokens; ids outside the vocabulary are ignored.
  std::vector<std::pair<int32_t, float>> logit_bias;
  /// End the answer as the end-of-text token does, and are no part of its text either.
  std::vector<int32_t> stop_tokens;
  /// Before so many tokens no token ends the answer.
  int64_t min_tokens = 0;
  /// Sequences of tokens, none empty, that the answer does not hold.
  std::vector<std::vector<int32_t>> banned;
};

/// `logits` of the answer's next token under the rules, in `scratch` if they differ. `answer`: its
/// tokens so far; `end_tokens`: what ends it beside the stop tokens. Where the
/// rules would leave nothing to choose from they do not apply.
std::span<const float> apply_rules(const TokenRules& rules, std::span<const int32_t> answer,
                                   std::span<const int64_t> end_tokens,
                                   std::span<const float> logits, std::vector<float>& scratch);

}  // namespace kvcast

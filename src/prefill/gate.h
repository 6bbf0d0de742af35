// Whether a forecast can be trusted: what the base makes of the prompt's own end over it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "prefill/strategy.h"

namespace kvcast {

/// The last so many rows of a tail are judged by.
constexpr int64_t kJudgedRows = 16;

/// How far a forecast can be trusted, in nats: the log-probability of the base's first choice after
/// the prompt, and half of what the base predicts the prompt's last tokens better than the
/// auxiliary, mean over these. `base` [tokens, vocab_size] are the logits after each of the
/// prompt's last tokens, over the forecast; `auxiliary` the same, which had the whole prompt, or
/// empty: then the first alone. Not a number where a logit is none.
double forecast_score(std::span<const int32_t> last_tokens, std::span<const float> base,
                      std::span<const float> auxiliary);

/// Rows of the base's tails, after all of its layers, over forecasts that have just been made.
struct JudgedTails {
  std::span<Sequence* const> sequences;  ///< forecast just now
  std::span<const int64_t> rows;         ///< [sequences] how many of each one's last tokens
  std::span<const float* const> hidden;  ///< [sequences] [rows, model_dim], behind the last layer
  std::span<float* const> logits;        ///< [sequences] [vocab_size]: written, of the last token
};

/// Sets Sequence::gate of each. The auxiliary reads the tails for it, where it keeps what is
/// needed: all of its layers. False: stopped.
bool judge_forecasts(const Models& models, const JudgedTails& tails, double threshold,
                     PrefillWorkspace& workspace, const std::stop_token& stop);

}  // namespace kvcast

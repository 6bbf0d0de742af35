// Whether a forecast can be trusted: how sure the base is of how it would go on over it.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>

#include "prefill/strategy.h"

namespace kvcast {

/// The base's first greedy tokens after the prompt that a forecast is judged by.
constexpr int64_t kJudgedTokens = 6;

/// The base's choice among logits [vocab_size], and how sure it is of it.
struct GreedyChoice {
  int32_t token = 0;
  double log_probability = 0;  ///< in nats
  double margin = 0;           ///< over the next likeliest token, in nats
};
GreedyChoice greedy_choice(std::span<const float> logits);

/// How far a forecast can be trusted over which a base would begin its answer with these: the least
/// of their margins, since an error of the forecast turns that choice first, and half of the least
/// of their log-probabilities. NaN where a logit is none.
double forecast_score(std::span<const GreedyChoice> choices);

/// Sets Sequence::gate of sequences that were forecast just now, by the forecast_score of the
/// base's first greedy tokens over it. `logits` [sequences] [vocab_size] are those after the
/// prompt. The base looks ahead until a score is below the threshold; tokens and caches are then as
/// before. False: stopped.
bool judge_forecasts(const Models& models, std::span<Sequence* const> sequences,
                     std::span<const float* const> logits, double threshold,
                     PrefillWorkspace& workspace, const std::stop_token& stop);

}  // namespace kvcast

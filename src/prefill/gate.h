// Whether a forecast can be trusted: how sure the base is of how it would go on over it.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>

#include "prefill/strategy.h"

namespace kvcast {

/// The base's first greedy tokens after the prompt that a forecast is judged by.
constexpr int64_t kJudgedTokens = 4;

/// Sets Sequence::gate of sequences that were forecast just now: the score is the mean
/// log-probability of the base's first greedy tokens over the forecast, in nats; NaN where a logit
/// is. `logits` [sequences] [vocab_size] are those after the prompt. The base looks ahead; tokens
/// and caches are then as before. False: stopped.
bool judge_forecasts(const Models& models, std::span<Sequence* const> sequences,
                     std::span<const float* const> logits, double threshold,
                     PrefillWorkspace& workspace, const std::stop_token& stop);

}  // namespace kvcast

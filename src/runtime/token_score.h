#pragma once

#include <cstdint>
#include <span>

#include "runtime/engine_request.h"

namespace kvcast {

/// log softmax(logits)[token], in double.
double log_probability(std::span<const float> logits, int32_t token);

/// Log-probability of `token` under softmax(logits) and the `top_count` most probable tokens (lower
/// id first among equals). A token's probability is the same float wherever it appears.
TokenScore score_token(std::span<const float> logits, int32_t token, int64_t top_count);

}  // namespace kvcast

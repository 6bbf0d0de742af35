// How the next token is chosen from the logits.
#pragma once

#include <cstdint>

#include "kvcast/result.h"

namespace kvcast {

/// The defaults choose greedily. With a temperature the filters apply in this order, as in Hugging
/// Face transformers: repetition penalty, temperature, top_k, top_p, min_p; then one token is
/// drawn from what is left. The most probable token always stays.
struct SamplingOptions {
  /// Logits are divided by this; 0: always the most probable token (greedy). Finite, >= 0.
  float temperature = 0.0F;
  /// Only the k most probable tokens; 0: off.
  int64_t top_k = 0;
  /// Only the most probable tokens that together reach this probability; 1: off. In (0, 1].
  float top_p = 1.0F;
  /// Only tokens with at least this share of the most probable token's probability; 0: off.
  /// In [0, 1].
  float min_p = 0.0F;
  /// Logits of all tokens of prompt and answer so far are divided by this where positive,
  /// multiplied where negative (CTRL, arXiv 1909.05858); 1: off. Applies to greedy too. Finite, >
  /// 0.
  float repetition_penalty = 1.0F;
  /// Equal seeds and logits give equal tokens, on every platform.
  uint64_t seed = 0;
};

/// An error that names the option that is out of its range and the range.
Status validate(const SamplingOptions& options);

}  // namespace kvcast

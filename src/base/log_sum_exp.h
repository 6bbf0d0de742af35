#pragma once

#include <algorithm>
#include <cmath>
#include <span>

namespace kvcast {

/// log of the sum of exp(logits): logits less this are log-probabilities, in nats. Not empty.
inline double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return static_cast<double>(largest) + std::log(sum);
}

}  // namespace kvcast

#include "runtime/token_score.h"

#include <algorithm>
#include <numeric>

#include "base/log_sum_exp.h"

namespace kvcast {

double log_probability(std::span<const float> logits, int32_t token) {
  return static_cast<double>(logits[static_cast<size_t>(token)]) - log_sum_exp(logits);
}

TokenScore score_token(std::span<const float> logits, int32_t token, int64_t top_count) {
  const double log_sum = log_sum_exp(logits);
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - log_sum);
  };
  TokenScore score{.token = token, .logprob = logprob(token), .top = {}};
  const auto count =
      static_cast<size_t>(std::clamp<int64_t>(top_count, 0, static_cast<int64_t>(logits.size())));
  if (count == 0) return score;
  const auto more_probable = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::vector<int32_t> best;  // kept sorted; top_count is small
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
    if (best.size() == count && !more_probable(id, best.back())) continue;
    best.insert(std::ranges::upper_bound(best, id, more_probable), id);
    if (best.size() > count) best.pop_back();
  }
  for (const int32_t id : best) score.top.emplace_back(id, logprob(id));
  return score;
}

}  // namespace kvcast

#include "runtime/token_rules.h"

#include <algorithm>
#include <limits>
#include <map>

namespace kvcast {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

/// Whether the answer ends with all of the sequence but its last token.
bool may_complete(std::span<const int32_t> answer, std::span<const int32_t> sequence) {
  const size_t before = sequence.size() - 1;
  return answer.size() >= before && std::ranges::equal(answer.last(before), sequence.first(before));
}

std::vector<int32_t> banned_now(const TokenRules& rules, std::span<const int32_t> answer,
                                std::span<const int64_t> end_tokens) {
  std::vector<int32_t> banned;
  if (std::ssize(answer) < rules.min_tokens) {
    banned = rules.stop_tokens;
    for (const int64_t token : end_tokens) banned.push_back(static_cast<int32_t>(token));
  }
  for (const std::vector<int32_t>& sequence : rules.banned) {
    if (may_complete(answer, sequence)) banned.push_back(sequence.back());
  }
  return banned;
}

}  // namespace

std::span<const float> apply_rules(const TokenRules& rules, std::span<const int32_t> answer,
                                   std::span<const int64_t> end_tokens,
                                   std::span<const float> logits, std::vector<float>& scratch) {
  const std::vector<int32_t> banned = banned_now(rules, answer, end_tokens);
  const bool penalises = rules.presence_penalty != 0.0F || rules.frequency_penalty != 0.0F;
  if (!penalises && rules.logit_bias.empty() && banned.empty()) return logits;
  scratch.assign(logits.begin(), logits.end());
  const auto add = [&](int32_t token, float bias) {
    if (token >= 0 && static_cast<size_t>(token) < scratch.size()) scratch[token] += bias;
  };
  if (penalises) {
    std::map<int32_t, int> times;
    for (const int32_t token : answer) times[token] += 1;
    for (const auto& [token, count] : times) {
      add(token, -rules.presence_penalty - rules.frequency_penalty * static_cast<float>(count));
    }
  }
  for (const auto& [token, bias] : rules.logit_bias) add(token, bias);
  for (const int32_t token : banned) add(token, kNever);
  const bool any = std::ranges::any_of(scratch, [](float logit) { return logit > kNever; });
  return any ? std::span<const float>(scratch) : logits;
}

}  // namespace kvcast

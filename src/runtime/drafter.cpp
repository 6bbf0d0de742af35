#include "runtime/drafter.h"

#include <algorithm>

namespace kvcast {
namespace {

/// What is expected of matches of 1, 2, 3, 4-5, 6-9, 10-19 and more tokens before anything is known
/// of an answer, and for how many tokens' experience that counts.
constexpr std::array<double, 7> kExpected = {0.1, 0.25, 0.4, 0.5, 0.65, 0.75, 0.85};
constexpr double kExpectedWeight = 4;
/// What the experience of a token counts for after the next one.
constexpr double kFading = 0.95;

}  // namespace

size_t Drafter::length_class(int64_t length) {
  constexpr std::array<int64_t, kLengths - 1> kEnds = {2, 3, 4, 6, 10, 20};
  return static_cast<size_t>(std::ranges::upper_bound(kEnds, length) - kEnds.begin());
}

double Drafter::probability(int64_t length) const {
  const size_t i = length_class(length);
  const Experience& seen = experience_[i];
  return (seen.right + kExpectedWeight * kExpected[i]) / (seen.all + kExpectedWeight);
}

void Drafter::follow(std::span<const int32_t> tokens) {
  const bool is_new = text_.size() == 0;
  for (const int32_t token : tokens.subspan(static_cast<size_t>(text_.size()))) {
    RepeatIndex::Match same;
    if (match_.length > 0) {
      const bool right = text_.following(match_, 0) == token;
      Experience& seen = experience_[length_class(match_.length)];
      seen.right = kFading * seen.right + (right ? 1 : 0);
      seen.all = kFading * seen.all + 1;
      if (right) same = {match_.next + 1, std::min(match_.length + 1, RepeatIndex::kLongest)};
    }
    text_.push(token);
    if (!is_new) match_ = text_.find(same);
  }
  if (is_new) match_ = text_.find();
}

void Drafter::take_back(int64_t tokens) {
  if (tokens >= text_.size()) return;
  text_.truncate(tokens);
  match_ = text_.find();
}

std::span<const Guess> Drafter::guesses(int64_t most) {
  guesses_.clear();
  if (match_.length == 0) return guesses_;
  double all_right = 1;
  for (int64_t i = 0; i < most; ++i) {
    all_right *= probability(match_.length + i);
    guesses_.push_back({text_.following(match_, i), all_right});
  }
  return guesses_;
}

}  // namespace kvcast

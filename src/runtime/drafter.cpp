#include "runtime/drafter.h"

#include <algorithm>

namespace kvcast {
namespace {

/// For how many tokens' experience what is expected counts.
constexpr double kExpectedWeight = 4;
/// What the experience of a token counts for after the next one.
constexpr double kFading = 0.95;

}  // namespace

size_t Drafter::length_class(int64_t length) {
  constexpr std::array<int64_t, kLengths - 1> kEnds = {2, 3, 4, 6, 10, 20};
  return static_cast<size_t>(std::ranges::upper_bound(kEnds, length) - kEnds.begin());
}

double Drafter::probability(const Experience& seen) {
  return (seen.right + kExpectedWeight * seen.expected) / (seen.all + kExpectedWeight);
}

void Drafter::Experience::add(bool came_true) {
  right = kFading * right + (came_true ? 1 : 0);
  all = kFading * all + 1;
}

size_t Drafter::probability_class(double probability) {
  constexpr std::array<double, 4> kEnds = {0.3, 0.5, 0.7, 0.9};
  return static_cast<size_t>(std::ranges::upper_bound(kEnds, probability) - kEnds.begin());
}

double Drafter::trust(double auxiliary_probability) const {
  return probability(choices_[probability_class(auxiliary_probability)]);
}

void Drafter::judge(double auxiliary_probability, bool right) {
  choices_[probability_class(auxiliary_probability)].add(right);
  any_.add(right);
}

void Drafter::pass() {
  any_.right *= kFading;
  any_.all *= kFading;
}

void Drafter::follow(std::span<const int32_t> tokens) {
  const bool is_new = text_.size() == 0;
  for (const int32_t token : tokens.subspan(static_cast<size_t>(text_.size()))) {
    RepeatIndex::Match same;
    if (match_.length > 0) {
      const bool right = text_.following(match_, 0) == token;
      matches_[length_class(match_.length)].add(right);
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
    all_right *= probability(matches_[length_class(match_.length + i)]);
    guesses_.push_back({text_.following(match_, i), all_right});
  }
  return guesses_;
}

}  // namespace kvcast

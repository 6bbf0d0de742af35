#include "runtime/draft_choice.h"

#include <algorithm>

#include "kvcast/session.h"

namespace kvcast {
namespace {

/// Guesses of one answer that are looked at.
constexpr int64_t kMostGuesses = 16;

struct Candidate {
  size_t answer = 0;
  Guess guess;
};

/// How many of `candidates`, the most probable first, make the most tokens a second.
size_t most_worthwhile(std::span<const Candidate> candidates, std::span<const double> costs,
                       double tokens) {
  size_t best = 0;
  double best_rate = kWorthwhileDrafts * tokens;
  for (size_t count = 0; count < candidates.size() && count + 1 < costs.size(); ++count) {
    tokens += candidates[count].guess.probability;
    const double rate = tokens / costs[count + 1];
    if (rate <= best_rate) continue;
    best = count + 1;
    best_rate = rate;
  }
  return best;
}

}  // namespace

std::vector<std::vector<int32_t>> choose_drafts(const StepCosts& costs,
                                                std::span<const Draftable> answers, int64_t rows) {
  std::vector<std::vector<int32_t>> chosen(answers.size());
  std::vector<Candidate> candidates;
  int64_t left = kMostDraftRows;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& [drafter, most] = answers[i];
    if (drafter == nullptr) continue;
    if (drafter->most() == kDraftsAuto) {
      for (const Guess& guess : drafter->guesses(std::min(most, kMostGuesses))) {
        candidates.push_back({i, guess});
      }
      continue;
    }
    for (const Guess& guess : drafter->guesses(std::min({most, drafter->most(), left}))) {
      chosen[i].push_back(guess.token);
      --left;
      ++rows;
    }
  }
  if (candidates.empty() || left == 0) return chosen;
  // Stable: an answer's guesses stay in their order.
  std::ranges::stable_sort(candidates, std::ranges::greater{},
                           [](const Candidate& c) { return c.guess.probability; });
  const std::vector<double> relative = costs.relative(rows, std::min(left, std::ssize(candidates)));
  const size_t count = most_worthwhile(candidates, relative, static_cast<double>(answers.size()));
  for (const Candidate& candidate : std::span(candidates).first(count)) {
    chosen[candidate.answer].push_back(candidate.guess.token);
  }
  return chosen;
}

}  // namespace kvcast

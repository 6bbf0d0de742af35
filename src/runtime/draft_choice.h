// How many guesses of each answer a decode step runs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "prefill/models.h"
#include "prefill/step_costs.h"
#include "runtime/drafter.h"

namespace kvcast {

/// Guesses that one step runs at most, of all answers together.
constexpr int64_t kMostDraftRows = 64;
/// What drafts must bring, in tokens a second, to be run: probabilities and costs are estimates.
constexpr double kWorthwhileDrafts = 1.03;

/// An answer's guesses, those of `drafter` up to `most`.
struct Draftable {
  Drafter* drafter = nullptr;  ///< null: none
  int64_t most = 0;            ///< tokens that the answer may have beside the next one
};

/// Tokens to be run behind the pending ones of each answer. Where an answer's number is fixed it
/// gets as many; where it is kDraftsAuto, those that together make the most tokens a second of the
/// step, by their probabilities and by what `costs` knows of rows; none if that is hardly more than
/// without. `rows`: those of the step without drafts.
std::vector<std::vector<int32_t>> choose_drafts(const StepCosts& costs,
                                                std::span<const Draftable> answers, int64_t rows);

}  // namespace kvcast

#include "prefill/refine_pace.h"

namespace kvcast {
namespace {

/// Rows of a step that are tried; up to 12 are one register tile, behind that tiles have 6 or 8.
constexpr std::array<int64_t, 15> kSteps = {4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 24, 32, 48, 64, 96};
/// What refining may cost: decode keeps 85% of its speed.
constexpr double kMostTime = 1.17;
/// Steps without refinement, for comparison: at the beginning, and again as the context grows.
constexpr int64_t kComparisons = 2, kCallsPerComparison = 32;
/// Times that decide: fewer may all have been disturbed. What was dear is tried again now and then.
constexpr int64_t kLeastTrials = 3;

}  // namespace

int64_t RefinePace::rows(int64_t decode_rows, Depth depth) {
  const std::lock_guard lock(mutex_);
  Steps& steps = steps_[decode_rows];
  const Times& alone = steps.alone;
  const int64_t turn = ++calls_ % kCallsPerComparison;
  if (alone.count < kComparisons || turn == 0) return 0;
  const bool tries_again = turn == kCallsPerComparison / 2;
  int64_t best = decode_rows;
  for (const int64_t rows : kSteps) {
    if (rows <= decode_rows) continue;
    const Times& tried = steps.beside[static_cast<size_t>(depth)][rows];
    const bool dear = tried.count > 0 && tried.least() > kMostTime * alone.least();
    if (dear && tried.count >= kLeastTrials && !tries_again) break;
    best = rows;
    if (dear || tried.count == 0) break;
  }
  return best - decode_rows;
}

void RefinePace::observe(int64_t decode_rows, int64_t refined_rows, Depth depth, double ms) {
  const std::lock_guard lock(mutex_);
  Steps& steps = steps_[decode_rows];
  Times& times = refined_rows == 0
                     ? steps.alone
                     : steps.beside[static_cast<size_t>(depth)][decode_rows + refined_rows];
  times.ms[static_cast<size_t>(times.count++ % std::ssize(times.ms))] = ms;
}

}  // namespace kvcast

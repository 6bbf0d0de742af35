#include "prefill/refine_pace.h"

namespace kvcast {
namespace {

/// Rows of a step that are tried: they fill the register tiles of the kernels (6, 8 or 16 rows).
constexpr std::array<int64_t, 10> kSteps = {6, 9, 12, 16, 18, 24, 32, 48, 64, 96};
/// What refining may cost: decode keeps more than 85% of its speed.
constexpr double kMostTime = 1.15;
/// Steps without refinement, for comparison: at the beginning, and again as the context grows.
constexpr int64_t kComparisons = 2, kCallsPerComparison = 32;
/// Times that decide: fewer may all have been disturbed.
constexpr int64_t kTrials = 3;

}  // namespace

int64_t RefinePace::rows(int64_t decode_rows) {
  const std::lock_guard lock(mutex_);
  const Times& alone = times_[decode_rows];
  if (alone.count < kComparisons || ++calls_ % kCallsPerComparison == 0) return 0;
  int64_t best = decode_rows;
  for (const int64_t rows : kSteps) {
    if (rows <= decode_rows) continue;
    const Times& tried = times_[rows];
    const bool dear = tried.count > 0 && tried.least() > kMostTime * alone.least();
    if (dear && tried.count >= kTrials) break;
    best = rows;
    if (dear || tried.count == 0) break;
  }
  return best - decode_rows;
}

void RefinePace::observe(int64_t rows, double ms) {
  const std::lock_guard lock(mutex_);
  Times& times = times_[rows];
  times.ms[static_cast<size_t>(times.count++ % std::ssize(times.ms))] = ms;
}

}  // namespace kvcast

#include "prefill/step_costs.h"

#include <algorithm>
#include <iterator>

namespace kvcast {
namespace {

/// Times that decide: fewer may all have been disturbed.
constexpr int64_t kTrials = 3;
/// Steps after which times are of another context, or another load of the machine.
constexpr int64_t kFreshSteps = 256;
/// What a row beyond all that were seen is hoped to cost, of a step with one row less.
constexpr double kHopedRow = 0.03;

}  // namespace

double StepCosts::Times::least() const {
  return *std::min_element(ms.begin(), ms.begin() + std::min<int64_t>(count, std::ssize(ms)));
}

bool StepCosts::fresh(const Times& times) const { return steps_ - times.last_seen <= kFreshSteps; }

void StepCosts::observe(int64_t rows, double ms) {
  const std::lock_guard lock(mutex_);
  ++steps_;
  Times& times = times_[rows];
  if (!fresh(times)) times.count = 0;
  times.last_seen = steps_;
  times.ms[static_cast<size_t>(times.count++ % std::ssize(times.ms))] = ms;
}

std::vector<double> StepCosts::relative(int64_t rows, int64_t more) const {
  const std::lock_guard lock(mutex_);
  const auto alone = times_.find(rows);
  if (alone == times_.end() || !fresh(alone->second) || alone->second.count < kTrials) return {};
  std::vector<double> costs = {1.0};
  const double unit = alone->second.least();
  auto next = std::next(alone);
  double last = 1;  // of `last_rows`, the last that was seen
  int64_t last_rows = rows;
  for (int64_t at = rows + 1; at <= rows + more; ++at) {
    while (next != times_.end() && (next->first < at || !fresh(next->second))) ++next;
    const double hoped = costs.back() * (1 + kHopedRow);
    double cost = hoped;
    if (next != times_.end()) {
      const double seen = next->second.least() / unit;
      const auto part =
          static_cast<double>(at - last_rows) / static_cast<double>(next->first - last_rows);
      cost = last + part * (seen - last);
      if (next->second.count < kTrials) cost = std::min(cost, hoped);
      if (next->first == at) {
        last = cost;
        last_rows = at;
      }
    }
    costs.push_back(std::max(cost, costs.back()));  // a row more never takes less
  }
  return costs;
}

}  // namespace kvcast

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
  struct Seen {
    int64_t rows;
    double ms;
    bool certain;
  };
  std::vector<Seen> seen;
  for (const auto& [of_rows, times] : times_) {
    if (fresh(times)) seen.push_back({of_rows, times.least(), times.count >= kTrials});
  }
  const auto straight = [](const Seen& a, const Seen& b, int64_t at) {
    const auto part = static_cast<double>(at - a.rows) / static_cast<double>(b.rows - a.rows);
    return a.ms + part * (b.ms - a.ms);
  };
  auto next = std::ranges::lower_bound(seen, rows, {}, &Seen::rows);
  if (next == seen.end() || !next->certain) return {};
  Seen last{rows, next->ms, true};
  if (next->rows > rows) {
    if (next == seen.begin() || !std::prev(next)->certain) return {};
    last.ms = straight(*std::prev(next), *next, rows);
  }
  const double unit = last.ms;
  std::vector<double> costs = {1.0};
  for (int64_t at = rows + 1; at <= rows + more; ++at) {
    while (next != seen.end() && next->rows < at) ++next;
    const double hoped = costs.back() * (1 + kHopedRow);
    double cost = hoped;
    if (next != seen.end()) {
      cost = straight(last, *next, at) / unit;
      if (!next->certain) cost = std::min(cost, hoped);
      if (next->rows == at) last = {at, cost * unit, true};
    }
    costs.push_back(std::max(cost, costs.back()));  // a row more never takes less
  }
  return costs;
}

}  // namespace kvcast

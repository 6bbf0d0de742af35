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

void StepCosts::age() {
  const std::lock_guard lock(mutex_);
  ++steps_;
}

std::vector<StepCosts::Seen> StepCosts::seen_lately() const {
  std::vector<Seen> seen;
  for (const auto& [rows, times] : times_) {
    if (fresh(times)) seen.push_back({rows, times.least(), times.count >= kTrials});
  }
  return seen;
}

double StepCosts::between(const Seen& a, const Seen& b, int64_t rows) {
  const auto part = static_cast<double>(rows - a.rows) / static_cast<double>(b.rows - a.rows);
  return a.ms + part * (b.ms - a.ms);
}

std::optional<double> StepCosts::ms_of(const std::vector<Seen>& seen, int64_t rows) {
  const auto next = std::ranges::lower_bound(seen, rows, {}, &Seen::rows);
  if (next == seen.end() || !next->certain) return std::nullopt;
  if (next->rows == rows) return next->ms;
  if (next == seen.begin() || !std::prev(next)->certain) return std::nullopt;
  return between(*std::prev(next), *next, rows);
}

std::optional<double> StepCosts::ms(int64_t rows) const {
  const std::lock_guard lock(mutex_);
  return ms_of(seen_lately(), rows);
}

std::vector<double> StepCosts::relative(int64_t rows, int64_t more) const {
  const std::lock_guard lock(mutex_);
  const std::vector<Seen> seen = seen_lately();
  const std::optional<double> unit = ms_of(seen, rows);
  if (!unit) return {};
  Seen last{rows, *unit, true};
  auto next = std::ranges::lower_bound(seen, rows, {}, &Seen::rows);
  std::vector<double> costs = {1.0};
  for (int64_t at = rows + 1; at <= rows + more; ++at) {
    while (next != seen.end() && next->rows < at) ++next;
    const double hoped = costs.back() * (1 + kHopedRow);
    double cost = hoped;
    if (next != seen.end()) {
      cost = between(last, *next, at) / *unit;
      if (!next->certain) cost = std::min(cost, hoped);
      if (next->rows == at) last = {at, cost * *unit, true};
    }
    costs.push_back(std::max(cost, costs.back()));  // a row more never takes less
  }
  return costs;
}

}  // namespace kvcast

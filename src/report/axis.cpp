#include "report/axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "report/table.h"

namespace kvcast::report {
namespace {

/// The step, 1, 2 or 5 times a power of ten, that divides `span` into about `target` parts.
double nice_step(double span, int target) {
  const double rough = span / std::max(target, 1);
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double rest = rough / power;
  return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

/// Room beyond the data, so that no marker sits on the frame.
constexpr double kMargin = 0.04;

}  // namespace

std::string number_label(double value) {
  if (value == 0 || !std::isfinite(value)) return fmt::format("{}", value == 0 ? 0.0 : value);
  const double magnitude = std::abs(value);
  if (magnitude >= 1000 && magnitude < 1e9 && value == std::round(value)) {
    return with_thousands(static_cast<long long>(value));
  }
  return fmt::format("{:.6g}", value);
}

std::vector<Tick> linear_ticks(double low, double high, int target) {
  if (!(high > low) || !std::isfinite(high - low)) return {{low, number_label(low)}};
  const double step = nice_step(high - low, target);
  const int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  std::vector<Tick> ticks;
  const double tolerance = step * 1e-9;
  for (double k = std::ceil((low - tolerance) / step); k * step <= high + tolerance; ++k) {
    const double value = k == 0 ? 0 : k * step;
    const bool whole = decimals == 0 && std::abs(value) < 1e9;
    ticks.push_back({value, whole ? with_thousands(std::llround(value))
                            : decimals <= 6 && std::abs(value) < 1e9
                                ? fmt::format("{:.{}f}", value, decimals)
                                : number_label(value)});
  }
  return ticks;
}

std::vector<Tick> log_ticks(double low, double high) {
  const double decades = std::log10(high / low);
  std::vector<double> mantissas = {1, 2, 5};
  if (decades > 3) mantissas = {1};
  if (decades < 0.9) mantissas = {1, 1.5, 2, 3, 4, 5, 6, 8};
  const int every = std::max(1, static_cast<int>(std::ceil(decades / 8)));
  std::vector<Tick> ticks;
  for (int e = static_cast<int>(std::floor(std::log10(low)));
       e <= static_cast<int>(std::ceil(std::log10(high))); ++e) {
    if (e % every != 0) continue;
    for (const double mantissa : mantissas) {
      const double value = mantissa * std::pow(10.0, e);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) {
        ticks.push_back({value, number_label(value)});
      }
    }
  }
  return ticks;
}

Scale::Scale(const Axis& axis, const std::vector<double>& values, int target_ticks)
    : log_(axis.log) {
  double low = INFINITY, high = -INFINITY;
  for (const double value : values) {
    if (!std::isfinite(value) || (log_ && value <= 0)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) low = log_ ? 1 : 0, high = log_ ? 10 : 1;
  if (axis.from_zero && !log_) low = std::min(low, 0.0), high = std::max(high, 0.0);
  if (log_) {
    const double room = high > low ? std::pow(high / low, kMargin) : 1.5;
    low_ = low / room, high_ = high * room;
  } else {
    const double room = high > low ? (high - low) * kMargin : std::max(std::abs(low) * 0.1, 0.5);
    low_ = axis.from_zero && low == 0 ? 0 : low - room;
    high_ = axis.from_zero && high == 0 ? 0 : high + room;
  }
  low_ = axis.low.value_or(low_);
  high_ = axis.high.value_or(high_);
  if (!(high_ > low_)) high_ = log_ ? low_ * 10 : low_ + 1;
  if (axis.ticks.empty()) {
    ticks_ = log_ ? log_ticks(low_, high_) : linear_ticks(low_, high_, target_ticks);
  }
  for (const double value : axis.ticks) ticks_.push_back({value, number_label(value)});
}

double Scale::place(double value) const {
  if (!std::isfinite(value) || (log_ && value <= 0)) return NAN;
  if (log_) return std::log(value / low_) / std::log(high_ / low_);
  return (value - low_) / (high_ - low_);
}

}  // namespace kvcast::report

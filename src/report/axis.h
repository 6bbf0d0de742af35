// From numbers to places on paper: ranges, ticks and their labels.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace kvcast::report {

struct Axis {
  std::string label = {};  ///< with the unit, e.g. "TTFT (ms)"
  bool log = false;
  bool from_zero = false;                     ///< the range includes 0 (not with log)
  std::optional<double> low = {}, high = {};  ///< fixed ends; else what the data need
  std::vector<double> ticks = {};  ///< fixed ticks, e.g. the prompt lengths that were measured
};

struct Tick {
  double value = 0;
  std::string label;
};

/// Ticks at 1, 2 or 5 times a power of ten, about `target` of them, within [low, high].
std::vector<Tick> linear_ticks(double low, double high, int target);
/// Ticks of a logarithmic axis within [low, high], both positive: 1, 2 and 5 in every decade, or
/// fewer over many decades.
std::vector<Tick> log_ticks(double low, double high);
/// As short as possible: 1500 as "1,500", 0.25 as "0.25", 2e-5 as "2e-05".
std::string number_label(double value);

/// An axis that knows its data.
class Scale {
 public:
  /// `values`: all that must show; those that are not finite, and on a log axis not positive, are
  /// passed over. With nothing left the range is 0 to 1 (log: 1 to 10).
  Scale(const Axis& axis, const std::vector<double>& values, int target_ticks);

  /// 0 at the low end, 1 at the high end; beyond them outside [0, 1]; NaN where there is no place.
  [[nodiscard]] double place(double value) const;
  [[nodiscard]] const std::vector<Tick>& ticks() const { return ticks_; }
  [[nodiscard]] double low() const { return low_; }
  [[nodiscard]] double high() const { return high_; }

 private:
  bool log_ = false;
  double low_ = 0, high_ = 1;
  std::vector<Tick> ticks_;
};

}  // namespace kvcast::report

// Running sums that never overflow and need no second pass.
#pragma once

#include <cmath>
#include <cstdint>

namespace kvcast::analysis {

/// A value with its 95% interval; `low` and `high` are NaN where there is none.
struct Estimate {
  double value = 0, low = NAN, high = NAN;
};

/// Mean and spread of numbers that come one by one (Welford).
class RunningMoments {
 public:
  void add(double value) {
    ++count_;
    const double delta = value - mean_;
    mean_ += delta / static_cast<double>(count_);
    squares_ += delta * (value - mean_);
  }
  /// The moments of both together (Chan et al.).
  void add(const RunningMoments& other) {
    if (other.count_ == 0) return;
    const auto n = static_cast<double>(count_), m = static_cast<double>(other.count_);
    const double delta = other.mean_ - mean_;
    mean_ += delta * m / (n + m);
    squares_ += other.squares_ + delta * delta * n * m / (n + m);
    count_ += other.count_;
  }

  [[nodiscard]] int64_t count() const { return count_; }
  [[nodiscard]] double mean() const { return mean_; }
  /// Of the numbers seen: divided by their count.
  [[nodiscard]] double standard_deviation() const {
    return count_ == 0 ? 0 : std::sqrt(squares_ / static_cast<double>(count_));
  }
  /// Of the mean, if the numbers are independent; NaN for fewer than two.
  [[nodiscard]] double standard_error() const {
    if (count_ < 2) return NAN;
    const auto n = static_cast<double>(count_);
    return std::sqrt(squares_ / (n - 1) / n);
  }

 private:
  int64_t count_ = 0;
  double mean_ = 0, squares_ = 0;
};

/// The 97.5% quantile of Student's t, by the expansion of Cornish and Fisher around the normal's;
/// within 2% from 3 degrees of freedom on.
inline double student_t_975(int64_t degrees_of_freedom) {
  constexpr double kNormal = 1.959964;
  if (degrees_of_freedom == 1) return 12.7062;
  if (degrees_of_freedom == 2) return 4.30265;
  const double z = kNormal, v = static_cast<double>(degrees_of_freedom);
  const double z3 = z * z * z, z5 = z3 * z * z;
  return z + (z3 + z) / (4 * v) + (5 * z5 + 16 * z3 + 3 * z) / (96 * v * v);
}

/// The mean of independent numbers, with the interval of Student's t.
inline Estimate estimate_of(const RunningMoments& numbers) {
  if (numbers.count() < 2) return {numbers.mean()};
  const double half = student_t_975(numbers.count() - 1) * numbers.standard_error();
  return {numbers.mean(), numbers.mean() - half, numbers.mean() + half};
}

}  // namespace kvcast::analysis

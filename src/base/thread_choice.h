#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

namespace kvcast {

/// How many of the threads that may be used make short calls of one kind fastest, found by trying:
/// calls that wait for memory gain nothing by threads beyond those that memory feeds, and lose
/// where something else wants the processors. Most calls take what was best; now and then a few in
/// a row take the next number up or down. Thread-safe.
class ThreadChoice {
 public:
  explicit ThreadChoice(int most);

  /// Threads for the next call.
  [[nodiscard]] int threads() const;
  /// A call took this long. Only calls of one `kind`, one after the other, are compared.
  void took(int64_t kind, double ms);

 private:
  /// Calls in a row with one number of threads that are compared with as many of another. The first
  /// of each is not counted: threads sleep, or wake up.
  static constexpr int kInARow = 3;
  /// Comparisons that decide.
  static constexpr int kRounds = 3;

  void compare(double ratio);
  void end_of_rounds(bool moves);
  void choose_other();

  mutable std::mutex mutex_;
  std::vector<int> numbers_;  ///< of threads, falling
  size_t best_ = 0;           ///< of numbers_
  size_t other_ = 0;          ///< what is tried; best_: nothing to try
  bool trying_ = false;       ///< these calls are the other's
  int64_t kind_ = -1;
  int64_t wait_, calm_;  ///< calls until something is tried again, and after that
  int in_a_row_ = 0;
  double least_ms_ = 0, best_ms_ = 0;  ///< of the calls in a row, and of those before
  int rounds_ = 0;
  std::array<double, kRounds> ratios_ = {};  ///< the other's time over the best's
};

}  // namespace kvcast

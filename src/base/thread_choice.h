#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <vector>

namespace kvcast {

/// How many of the threads that may be used make short calls fastest, found by trying: calls that
/// wait for memory gain nothing by threads beyond those that memory feeds, and lose where something
/// else wants the processors. Most calls take what was best; now and then a few in a row take the
/// next number up or down, which is never below 4 or a quarter of all. Thread-safe; of calls that
/// overlap, none counts but the last that began.
class ThreadChoice {
 public:
  explicit ThreadChoice(int most);

  /// Calls with as many rows of as many sequences, one after the other, are compared as long as
  /// what they attend to grows by little.
  struct Work {
    int64_t rows = 0, sequences = 0, context = 0;
  };
  struct Call {
    int threads = 1;
    int64_t number = 0;
  };
  /// Before and after a call. What began and did not end is no harm.
  [[nodiscard]] Call begin();
  void end(const Call& call, const Work& work, double ms);
  /// Threads of a call that is not compared.
  [[nodiscard]] int threads() const;

 private:
  /// Calls in a row with one number of threads that are compared with as many of another. The first
  /// of each is not counted: threads sleep, or wake up.
  static constexpr int kInARow = 3;
  /// Comparisons that decide.
  static constexpr int kRounds = 3;

  void break_off();
  void compare(double ratio);
  void keep();
  void move();
  void choose_other();

  mutable std::mutex mutex_;
  std::vector<int> numbers_;  ///< of threads, falling
  size_t best_ = 0;           ///< of numbers_
  size_t other_ = 0;          ///< what is tried; best_: nothing to try
  bool trying_ = false;       ///< these calls are the other's
  int64_t begun_ = 0;         ///< the last call's number
  Work last_;
  int64_t wait_, calm_;  ///< calls until something is tried again, and after that
  int64_t in_vain_ = 0;  ///< calls without a comparison that came to an end
  int in_a_row_ = 0;     ///< comparable calls with the present number of threads
  double least_ms_ = 0;  ///< of those
  double best_ms_ = 0;   ///< of those before, with best_
  int rounds_ = 0;
  std::array<double, kRounds> ratios_ = {};  ///< the other's time over the best's
};

}  // namespace kvcast

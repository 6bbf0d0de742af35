#pragma once

#include <chrono>

namespace kvcast {

/// Milliseconds since construction or the last restart, on the steady clock.
class Stopwatch {
 public:
  [[nodiscard]] double elapsed_ms() const {
    return std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  }
  /// The time so far; starts again from zero.
  double restart() {
    const double elapsed = elapsed_ms();
    start_ = Clock::now();
    return elapsed;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace kvcast

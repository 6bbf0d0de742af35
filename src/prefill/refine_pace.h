#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <mutex>

namespace kvcast {

/// In place of a number of rows to be refined beside a decode step: what RefinePace finds.
constexpr int64_t kRefineAuto = -1;

/// How many rows can be refined beside a decode step at next to no cost: up to the knee at which
/// the arithmetic takes longer than the weights take to come from memory. Found by what steps take:
/// the first have no rows beside them, the next more and more while that costs little. Thread-safe.
class RefinePace {
 public:
  /// What rows are run through: all layers, or those behind the exact ones (rows_to_refine).
  enum class Depth { kAllLayers, kLastLayers };

  /// Rows to be refined in a step with so many decode rows.
  int64_t rows(int64_t decode_rows, Depth depth);
  /// A step with so many decode rows, and rows refined beside them, took this long.
  void observe(int64_t decode_rows, int64_t refined_rows, Depth depth, double ms);

 private:
  /// The least of the last times: what else the machine does only adds.
  struct Times {
    std::array<double, 4> ms{};
    int64_t count = 0;
    [[nodiscard]] double least() const {
      return *std::min_element(ms.begin(), ms.begin() + std::min<int64_t>(count, std::ssize(ms)));
    }
  };
  /// Of steps with so many decode rows.
  struct Steps {
    Times alone;
    std::array<std::map<int64_t, Times>, 2> beside;  // by Depth, by rows in all
  };

  std::mutex mutex_;
  std::map<int64_t, Steps> steps_;
  int64_t calls_ = 0;
};

}  // namespace kvcast

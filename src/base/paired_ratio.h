#pragma once

#include <span>

namespace kvcast {

/// How two things that were measured in turns compare.
struct PairedRatio {
  double median = 1;         ///< of first[i] / second[i]
  double low = 1, high = 1;  ///< the least and the greatest of them
  /// Every round says the same, and there are enough for that to be no accident.
  bool is_certain = false;
};

/// Rounds in which two equal things come out in the same order throughout once in 64 times.
inline constexpr int kCertainRounds = 7;

/// `first` and `second` hold one value per round, greater than 0.
[[nodiscard]] PairedRatio paired_ratio(std::span<const double> first,
                                       std::span<const double> second);

}  // namespace kvcast

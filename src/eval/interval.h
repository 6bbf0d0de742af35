#pragma once

#include <cstdint>
#include <span>

namespace kvcast {

/// A mean over examples and its 95% interval.
struct Interval {
  double value = 0, low = 0, high = 0;
};

/// Percentile bootstrap over examples: the 2.5% and 97.5% quantiles of the means of 1000 resamples.
/// Equal values and seeds give equal intervals, on every platform. `values` must not be empty.
Interval bootstrap_mean(std::span<const double> values, uint64_t seed);

}  // namespace kvcast

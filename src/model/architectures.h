// Arithmetic of OpenELM's layer-wise scaling (method §2), shared by config.cpp and
// architectures.cpp.
#pragma once

#include <cstdint>
#include <vector>

namespace kvcast {

/// `value` rounded to a multiple of `divisor`, at least `divisor`, never below 0.9 * value.
/// `value` must be finite and below 2^52.
int64_t make_divisible(double value, int64_t divisor);

/// round(linspace(first, last, count), 2) as numpy computes it.
std::vector<double> scaling_multipliers(double first, double last, int64_t count);

}  // namespace kvcast

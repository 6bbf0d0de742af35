// A rotation that spreads what one element of a head holds over many: keys of 8 bits are held
// turned by it, since some models' keys have a few elements a hundred times as large as the others,
// and one step for all would leave these nothing. Queries are turned alike; products are the same.
#pragma once

#include <cmath>
#include <cstdint>

namespace kvcast {
namespace {

/// The Walsh-Hadamard transform, scaled to be orthogonal, of each run of x [n] whose length is the
/// largest power of two that divides n. Its own inverse.
inline void rotate_head(float* x, int64_t n) {
  const int64_t run = n & -n;
  const float scale = 1.0F / std::sqrt(static_cast<float>(run));
  for (int64_t begin = 0; begin < n; begin += run) {
    float* const y = x + begin;
    for (int64_t half = 1; half < run; half *= 2) {
      for (int64_t i = 0; i < run; i += 2 * half) {
        for (int64_t j = i; j < i + half; ++j) {
          const float a = y[j], b = y[j + half];
          y[j] = a + b;
          y[j + half] = a - b;
        }
      }
    }
    for (int64_t i = 0; i < run; ++i) y[i] *= scale;
  }
}

}  // namespace
}  // namespace kvcast

// Activations for weights in blocks of 32 along k: a row is its codes, then for each block a header
// of two floats: the scale, and the block's sum as quantised. Included after the file's Simd and
// gemm_inl.h.
#pragma once

#include "kernels/convert_inl.h"
#include "kernels/weight_blocks.h"

namespace kvcast {
namespace {

constexpr int64_t kBlockHeaderBytes = 8;

/// Whether products with a row are finite.
KVCAST_INLINE bool is_block_row(const float* row, int64_t k) {
  Simd::F largest = Simd::zero();
  Simd::F zero_or_nan = Simd::zero();
  for_each_vector(row, k, k, [&](int64_t, Simd::F x) {
    largest = Simd::max(largest, Simd::abs(x));
    zero_or_nan = Simd::fma(x, Simd::zero(), zero_or_nan);
  });
  return Simd::sum(zero_or_nan) == 0.0F && Simd::largest(largest) < kLargestBlockActivation;
}

/// emit(row bytes, i, q) takes a vector of codes.
template <class Dot, typename Emit>
KVCAST_INLINE void convert_to_blocks(const ConvertArgs& c, Emit&& emit) {
  constexpr int kVectors = static_cast<int>(kWeightBlock) / Simd::kWidth;
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* const row = c.a + r * c.a_stride;
    std::byte* const out = c.out + r * c.out_stride_bytes;
    std::byte* header = out + c.groups * 4 * Dot::kSteps;
    const bool finite = is_block_row(row, c.k);
    for (int64_t i = 0; i < c.groups * 4; i += kWeightBlock, header += kBlockHeaderBytes) {
      Simd::F x[kVectors];
      Simd::F largest = Simd::zero();
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = i + v * Simd::kWidth;
        x[v] = !finite                    ? Simd::zero()
               : at + Simd::kWidth <= c.k ? Simd::load(row + at)
               : at < c.k                 ? Simd::load_first(row + at, c.k - at)
                                          : Simd::zero();
        largest = Simd::max(largest, Simd::abs(x[v]));
      }
      const float scale = block_scale(Simd::largest(largest));
      const Simd::F inverse = Simd::set(1.0F / scale);
      Simd::F sum = Simd::zero();
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const Simd::F q = Simd::round(Simd::mul(x[v], inverse));
        sum = Simd::add(sum, q);
        emit(out, i + v * Simd::kWidth, Simd::to_int(q));
      }
      const float written = finite ? scale : __builtin_nanf("");
      const float values[2] = {written, written * Simd::sum(sum)};
      static_assert(sizeof(values) == kBlockHeaderBytes);
      __builtin_memcpy(header, values, sizeof(values));
    }
  }
}

}  // namespace
}  // namespace kvcast

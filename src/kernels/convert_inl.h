// Conversion of f32 activations to what a product reads. Included after the file's Simd.
#pragma once

#include "kernels/kernel_table.h"

namespace kvcast {
namespace {

/// Calls emit(i, vector of k elements i .. i + kWidth) over a row padded with zeros to `padded`.
template <typename Emit>
KVCAST_INLINE void for_each_vector(const float* row, int64_t k, int64_t padded, Emit&& emit) {
  int64_t i = 0;
  for (; i + Simd::kWidth <= k; i += Simd::kWidth) emit(i, Simd::load(row + i));
  for (; i < padded; i += Simd::kWidth) {
    emit(i, i < k ? Simd::load_first(row + i, k - i) : Simd::zero());
  }
}

/// f32 as it is, zero-padded; kGroup elements make a group.
template <int kGroup>
void convert_f32(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    auto* const out = reinterpret_cast<float*>(c.out + r * c.out_stride_bytes);
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * kGroup,
                    [&](int64_t i, Simd::F x) { Simd::store(out + i, x); });
  }
}

/// Symmetric quantisation per row: q = round(a * 127 / max|a|). emit(row bytes, i, q). A row with
/// an infinity or NaN has no scale: its products are NaN, as in f32.
template <typename Emit>
KVCAST_INLINE void convert_int8(const ConvertArgs& c, Emit&& emit) {
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* const row = c.a + r * c.a_stride;
    Simd::F largest = Simd::zero();
    Simd::F zero_or_nan = Simd::zero();
    for_each_vector(row, c.k, c.k, [&](int64_t, Simd::F x) {
      largest = Simd::max(largest, Simd::abs(x));
      zero_or_nan = Simd::fma(x, Simd::zero(), zero_or_nan);
    });
    const float scale = Simd::largest(largest);
    const float not_finite = Simd::sum(zero_or_nan);
    std::byte* const out = c.out + r * c.out_stride_bytes;
    if (not_finite != 0.0F) {
      c.row_scales[r] = not_finite;
      for (int64_t i = 0; i < c.groups * 4; i += Simd::kWidth) emit(out, i, Simd::zero_int());
      continue;
    }
    c.row_scales[r] = scale / 127.0F;
    const Simd::F inverse = Simd::set(scale >= kSmallestLargest ? 127.0F / scale : 0.0F);
    for_each_vector(row, c.k, c.groups * 4, [&](int64_t i, Simd::F x) {
      emit(out, i, Simd::to_int(Simd::mul(x, inverse)));
    });
  }
}

}  // namespace
}  // namespace kvcast

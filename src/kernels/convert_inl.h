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

/// Symmetric quantisation per row: q = round(a * 127 / max|a|). emit(row bytes, i, q).
template <typename Emit>
KVCAST_INLINE void convert_int8(const ConvertArgs& c, Emit&& emit) {
  for (int64_t r = 0; r < c.rows; ++r) {
    const float* const row = c.a + r * c.a_stride;
    Simd::F largest = Simd::zero();
    for_each_vector(row, c.k, c.k,
                    [&](int64_t, Simd::F x) { largest = Simd::max(largest, Simd::abs(x)); });
    const float scale = Simd::largest(largest);
    c.row_scales[r] = scale / 127.0F;
    const Simd::F inverse = Simd::set(scale > 0.0F ? 127.0F / scale : 0.0F);
    std::byte* const out = c.out + r * c.out_stride_bytes;
    for_each_vector(row, c.k, c.groups * 4, [&](int64_t i, Simd::F x) {
      emit(out, i, Simd::to_int(Simd::mul(x, inverse)));
    });
  }
}

/// As int16 pairs for DotInt8Widened: 8 bytes a group.
void convert_int8_widened(const ConvertArgs& c) {
  convert_int8(c,
               [](std::byte* out, int64_t i, Simd::I q) { Simd::store_widened(out + 2 * i, q); });
}

}  // namespace
}  // namespace kvcast

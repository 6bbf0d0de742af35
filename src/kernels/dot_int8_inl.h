// int8 weights times int8 activations in 32-bit sums; included after gemm_inl.h.
#pragma once

#include "kernels/gemm_inl.h"

namespace kvcast {
namespace {

/// Sums of products back to f32: (sum - offset * column sum) * row scale * column scale.
template <int32_t kOffset>
struct DotInt8 {
  using Accumulator = Simd::I;
  static Accumulator zero() { return Simd::zero_int(); }
  static Accumulator load(const std::byte* p) { return Simd::load_int(p); }
  static void store(std::byte* p, Accumulator x) { Simd::store_int(p, x); }
  static Simd::I weights(const std::byte* p) { return Simd::load_int(p); }
  static Simd::I activation(const std::byte* p) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(p));
  }

  template <int kRows, int kVectors>
  struct Scaled {
    Simd::F values[kRows][kVectors];
  };
  template <int kRows, int kVectors>
  static KVCAST_INLINE Scaled<kRows, kVectors> to_float(const Tile& t,
                                                        Simd::I (&acc)[kRows][kVectors]) {
    const std::byte* const scales = t.args->panel + t.args->groups * kPanelRowBytes + t.column * 4;
    Scaled<kRows, kVectors> result;
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const std::byte* const column = scales + v * Simd::kWidth * 4;
      const Simd::F scale = Simd::load(reinterpret_cast<const float*>(column));
      Simd::I correction = Simd::zero_int();
      if constexpr (kOffset == 128) {
        correction = Simd::shift_left_int(Simd::load_int(column + kPanelRowBytes), 7);
      }
      KVCAST_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Simd::F sum = Simd::to_float(Simd::sub_int(acc[r][v], correction));
        const Simd::F row_scale = Simd::set(t.args->row_scales[t.row + r]);
        result.values[r][v] = Simd::mul(sum, Simd::mul(row_scale, scale));
      }
    }
    return result;
  }
};

}  // namespace
}  // namespace kvcast

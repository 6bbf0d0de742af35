// The instructions that BF16 and VNNI add. Included after the file's Simd.
#pragma once

#include "kernels/vnni_inl.h"

namespace kvcast {
namespace {

/// vdpbf16ps: a pair of bf16 products per lane.
struct DotBf16 : DotF32 {
  static Simd::I weights(const std::byte* p) { return Simd::load_int(p); }
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Simd::I activation(const std::byte* p) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(p));
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
  }
};

/// bf16 keys and values as they are: pairs along head_dim in the scores, of keys in the mix.
struct CacheBf16Dot : CachedRows<uint16_t> {
  using Dot = DotBf16;
  static constexpr int64_t kPerGroup = 2;

  static KVCAST_INLINE Simd::F load_groups(const uint16_t* row, int64_t group, int64_t count) {
    return Simd::load_first(reinterpret_cast<const float*>(row) + group, count);
  }
  static float store_query(const float* q, int64_t head_dim, float factor, float* out) {
    auto* const halves = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < head_dim; i += Simd::kWidth) {
      const Simd::F x = Simd::mul(Simd::load_first(q + i, head_dim - i), Simd::set(factor));
      Simd::store_bf16(halves + i, x);
    }
    return 1.0F;
  }
  static KVCAST_INLINE Simd::F probabilities(Simd::F x) {
    return exp2_up_to_zero(x, exp2_fraction_for_bf16);
  }
  static KVCAST_INLINE void store_probabilities(float* row, int64_t i, Simd::F p) {
    Simd::store_bf16(reinterpret_cast<uint16_t*>(row) + i, p);
  }
  /// values [keys, head_dim] -> [keys / 2, width] pairs of keys.
  static const void* prepare_values(const uint16_t* values, int64_t keys, int64_t head_dim,
                                    int64_t width, float* out) {
    auto* const pairs = reinterpret_cast<std::byte*>(out);
    for (int64_t j = 0; j < keys; j += 2) {
      const uint16_t* const even = values + j * head_dim;
      for (int64_t i = 0; i < width; i += Simd::kWidth) {
        const Simd::I low = load_halves(even + i, head_dim - i);
        const Simd::I high =
            j + 1 < keys ? load_halves(even + head_dim + i, head_dim - i) : Simd::zero_int();
        Simd::store_int(pairs + (j / 2 * width + i) * 4,
                        _mm512_or_si512(low, Simd::shift_left_int(high, 16)));
      }
    }
    return out;
  }

 private:
  static Simd::I load_halves(const uint16_t* p, int64_t count) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(Simd::mask(count), p));
  }
};

}  // namespace
}  // namespace kvcast

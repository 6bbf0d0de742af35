// AVX-512 (F, BW, DQ, VL) behind the names that the shared kernel templates use. Everything is in
// an anonymous namespace: files with different flags must not share one compiled copy.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"

namespace kvcast {
namespace {

struct Simd {
  using F = __m512;
  using I = __m512i;
  static constexpr int kWidth = 16;
  /// Register tile of a product: rows x vectors; 24 accumulators of 32 registers.
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 4;
  static constexpr int kVectorTileVectors = 4;  ///< for one row

  static F zero() { return _mm512_setzero_ps(); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static __mmask16 mask(int64_t n) {
    return static_cast<__mmask16>(n >= 16 ? 0xffffU : (1U << n) - 1U);
  }
  /// The first n lanes, the rest zero; n in 0..kWidth.
  static F load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static void store_first(float* p, F x, int64_t n) { _mm512_mask_storeu_ps(p, mask(n), x); }
  /// x in the first n lanes, y in the others.
  static F first_or(F x, F y, int64_t n) { return _mm512_mask_blend_ps(mask(n), y, x); }
  static F add(F x, F y) { return _mm512_add_ps(x, y); }
  static F sub(F x, F y) { return _mm512_sub_ps(x, y); }
  static F mul(F x, F y) { return _mm512_mul_ps(x, y); }
  static F div(F x, F y) { return _mm512_div_ps(x, y); }
  static F fma(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
  /// One float for all lanes, in the form that a product takes it in.
  using Repeated = F;
  static Repeated repeat(const float* p) { return set(*p); }
  static F fma_repeated(Repeated x, F y, F z) { return fma(x, y, z); }
  static F max(F x, F y) { return _mm512_max_ps(x, y); }
  static F min(F x, F y) { return _mm512_min_ps(x, y); }
  static F abs(F x) { return _mm512_abs_ps(x); }
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
  /// x * 2^n for whole n >= -200; zero below 2^-126. (vscalefps would produce denormals there,
  /// which cost a microcode assist each.)
  static F scale_by_power(F x, F n) {
    const I exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    const I bits = _mm512_slli_epi32(_mm512_max_epi32(exponent, _mm512_setzero_si512()), 23);
    return _mm512_mul_ps(x, _mm512_castsi512_ps(bits));
  }
  static float sum(F x) { return _mm512_reduce_add_ps(x); }
  static float largest(F x) { return _mm512_reduce_max_ps(x); }

  static I zero_int() { return _mm512_setzero_si512(); }
  static I load_int(const std::byte* p) { return _mm512_loadu_si512(p); }
  static void store_int(std::byte* p, I x) { _mm512_storeu_si512(p, x); }
  static I set_int(int32_t x) { return _mm512_set1_epi32(x); }
  static I xor_int(I x, I y) { return _mm512_xor_si512(x, y); }
  static I sub_int(I x, I y) { return _mm512_sub_epi32(x, y); }
  /// Of bytes, unsigned in x and signed in y: products added in pairs, in 16 bits (which must hold
  /// them), to 16-bit sums.
  /// A product and its addition are one piece: GCC 12 computes a tile's products first, and spills
  /// them.
  static I add_products_of_bytes(I sum, I x, I y) {
    I product;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+v"(sum), "=&v"(product)
            : "v"(x), "v"(y));
    return sum;
  }
  /// Of 16-bit numbers, in pairs, to 32-bit sums.
  static I add_products_of_pairs(I sum, I x, I y) {
    I product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+v"(sum), "=&v"(product)
            : "v"(x), "v"(y));
    return sum;
  }
  static I and_int(I x, I y) { return _mm512_and_si512(x, y); }
  static I shift_right_int(I x, int n) { return _mm512_srli_epi32(x, static_cast<unsigned>(n)); }
  /// kWidth f16 as f32.
  static F load_f16(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static I shift_left_int(I x, int n) { return _mm512_slli_epi32(x, static_cast<unsigned>(n)); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static I to_int(F x) { return _mm512_cvtps_epi32(x); }
  static F as_float(I x) { return _mm512_castsi512_ps(x); }
  static I as_int(F x) { return _mm512_castps_si512(x); }
  /// kWidth bf16 as f32.
  static F load_bf16(const uint16_t* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  /// kWidth signed bytes as 32-bit numbers, as f32; twice as many as 16-bit numbers.
  static I load_bytes(const int8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load_int8(const int8_t* p) { return to_float(load_bytes(p)); }
  static I load_bytes_in_pairs(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  /// The low halves of the lanes, in their order.
  static void store_halves(int16_t* p, I x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
  }
  /// The first n floats, rounded to bf16.
  static void store_bf16(uint16_t* p, F x, int64_t n = kWidth) {
#ifdef __AVX512BF16__
    const auto halves = (__m256i)_mm512_cvtneps_pbh(x);
#else
    const I bits = as_int(x);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const I rounded = add_int(add_int(bits, odd), _mm512_set1_epi32(0x7fff));
    const I quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m256i halves =
        _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
    if (n == kWidth) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
    _mm256_mask_storeu_epi16(p, mask(n), halves);
  }
  /// The upper halves of 32-bit lanes: odd elements of bf16 pairs.
  static I high_halves(I x) { return _mm512_and_si512(x, _mm512_set1_epi32(-65536)); }

  static I add_int(I x, I y) { return _mm512_add_epi32(x, y); }
  /// Four int8 per lane -> elements 0 and 2 (even) or 1 and 3 (odd) as two int16.
  static I widen_even(I x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
  static I widen_odd(I x) { return _mm512_srai_epi16(x, 8); }
  /// Per lane: sum of the products of its two int16.
  static I multiply_pairs(I x, I y) { return _mm512_madd_epi16(x, y); }
  /// The low byte of each lane: kWidth bytes.
  static void store_bytes(std::byte* p, I x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
  }
  /// The low halves of the lanes as int16, every four in the order 0, 2, 1, 3 of widen_*.
  static void store_widened(std::byte* p, I x) {
    const I swapped = _mm512_shuffle_epi32(x, _MM_PERM_DBCA);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(swapped));
  }

  /// [kWidth keys][kWidth elements] -> [elements][keys].
  static KVCAST_INLINE void transpose(F (&x)[16]) {
    F t[16];
    KVCAST_UNROLL
    for (int i = 0; i < 16; i += 4) {
      const F a = _mm512_unpacklo_ps(x[i], x[i + 1]);
      const F b = _mm512_unpackhi_ps(x[i], x[i + 1]);
      const F c = _mm512_unpacklo_ps(x[i + 2], x[i + 3]);
      const F d = _mm512_unpackhi_ps(x[i + 2], x[i + 3]);
      t[i] = _mm512_shuffle_ps(a, c, 0x44);
      t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
      t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
      t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    KVCAST_UNROLL
    for (int j = 0; j < 4; ++j) {
      const F a = _mm512_shuffle_f32x4(t[j], t[j + 4], 0x88);
      const F b = _mm512_shuffle_f32x4(t[j], t[j + 4], 0xdd);
      const F c = _mm512_shuffle_f32x4(t[j + 8], t[j + 12], 0x88);
      const F d = _mm512_shuffle_f32x4(t[j + 8], t[j + 12], 0xdd);
      x[j] = _mm512_shuffle_f32x4(a, c, 0x88);
      x[j + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
      x[j + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
      x[j + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
  }
};

}  // namespace
}  // namespace kvcast

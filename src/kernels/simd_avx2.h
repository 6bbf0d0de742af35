// AVX2 + FMA behind the names that the shared kernel templates use (see simd_avx512.h).
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"

namespace kvcast {
namespace {

struct Simd {
  using F = __m256;
  using I = __m256i;
  static constexpr int kWidth = 8;
  /// 12 accumulators of 16 registers.
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 2;
  /// One row reads whole lines of the panel in the order they lie in memory.
  static constexpr int kVectorTileVectors = 8;

  static F zero() { return _mm256_setzero_ps(); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static I mask(int64_t n) {
    const I lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(n)), lanes);
  }
  static F load_first(const float* p, int64_t n) { return _mm256_maskload_ps(p, mask(n)); }
  static void store_first(float* p, F x, int64_t n) { _mm256_maskstore_ps(p, mask(n), x); }
  static F first_or(F x, F y, int64_t n) {
    return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(mask(n)));
  }
  static F add(F x, F y) { return _mm256_add_ps(x, y); }
  static F sub(F x, F y) { return _mm256_sub_ps(x, y); }
  static F mul(F x, F y) { return _mm256_mul_ps(x, y); }
  static F div(F x, F y) { return _mm256_div_ps(x, y); }
  static F fma(F x, F y, F z) { return _mm256_fmadd_ps(x, y, z); }
  using Repeated = F;
  static Repeated repeat(const float* p) { return set(*p); }
  static F fma_repeated(Repeated x, F y, F z) { return fma(x, y, z); }
  static F max(F x, F y) { return _mm256_max_ps(x, y); }
  static F min(F x, F y) { return _mm256_min_ps(x, y); }
  static F abs(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x); }
  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F scale_by_power(F x, F n) {
    const I exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    const I bits = _mm256_slli_epi32(_mm256_max_epi32(exponent, _mm256_setzero_si256()), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(bits));
  }
  static float sum(F x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float largest(F x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

  static I zero_int() { return _mm256_setzero_si256(); }
  static I load_int(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void store_int(std::byte* p, I x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  static I set_int(int32_t x) { return _mm256_set1_epi32(x); }
  static I xor_int(I x, I y) { return _mm256_xor_si256(x, y); }
  static I sub_int(I x, I y) { return _mm256_sub_epi32(x, y); }
  static I add_products_of_bytes(I sum, I x, I y) {
    I product;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(sum), "=&x"(product)
            : "x"(x), "x"(y));
    return sum;
  }
  static I add_products_of_pairs(I sum, I x, I y) {
    I product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sum), "=&x"(product)
            : "x"(x), "x"(y));
    return sum;
  }
  static I and_int(I x, I y) { return _mm256_and_si256(x, y); }
  static I shift_right_int(I x, int n) { return _mm256_srli_epi32(x, n); }
  static F load_f16(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I shift_left_int(I x, int n) { return _mm256_slli_epi32(x, n); }
  static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
  static I to_int(F x) { return _mm256_cvtps_epi32(x); }
  static F as_float(I x) { return _mm256_castsi256_ps(x); }
  static I as_int(F x) { return _mm256_castps_si256(x); }
  static F load_bf16(const uint16_t* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static I load_bytes(const int8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static F load_int8(const int8_t* p) { return to_float(load_bytes(p)); }
  static I load_bytes_in_pairs(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_halves(int16_t* p, I x) {
    const __m128i halves =
        _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
  }
  static void store_bf16(uint16_t* p, F x, int64_t n = kWidth) {
    const I bits = as_int(x);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const I rounded = add_int(add_int(bits, odd), _mm256_set1_epi32(0x7fff));
    const I quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const F chosen =
        _mm256_blendv_ps(as_float(rounded), as_float(quiet), _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const I high = _mm256_srli_epi32(as_int(chosen), 16);
    const __m128i halves =
        _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    if (n == kWidth) return _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
    alignas(16) uint16_t lanes[kWidth];
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes), halves);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }
  static I high_halves(I x) { return _mm256_and_si256(x, _mm256_set1_epi32(-65536)); }

  static I add_int(I x, I y) { return _mm256_add_epi32(x, y); }
  static I widen_even(I x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
  static I widen_odd(I x) { return _mm256_srai_epi16(x, 8); }
  static I multiply_pairs(I x, I y) { return _mm256_madd_epi16(x, y); }
  static void store_bytes(std::byte* p, I x) {
    const I pick = _mm256_setr_epi32(0x0c080400, -1, -1, -1, 0x0c080400, -1, -1, -1);
    const I bytes = _mm256_shuffle_epi8(x, pick);
    const __m128i both =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), both);
  }
  static void store_widened(std::byte* p, I x) {
    const I swapped = _mm256_shuffle_epi32(x, 0xd8);
    const __m128i halves =
        _mm_packs_epi32(_mm256_castsi256_si128(swapped), _mm256_extracti128_si256(swapped, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
  }

  static KVCAST_INLINE void transpose(F (&x)[8]) {
    F t[8];
    KVCAST_UNROLL
    for (int i = 0; i < 8; i += 4) {
      const F a = _mm256_unpacklo_ps(x[i], x[i + 1]);
      const F b = _mm256_unpackhi_ps(x[i], x[i + 1]);
      const F c = _mm256_unpacklo_ps(x[i + 2], x[i + 3]);
      const F d = _mm256_unpackhi_ps(x[i + 2], x[i + 3]);
      t[i] = _mm256_shuffle_ps(a, c, 0x44);
      t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
      t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
      t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    KVCAST_UNROLL
    for (int j = 0; j < 4; ++j) {
      x[j] = _mm256_permute2f128_ps(t[j], t[j + 4], 0x20);
      x[j + 4] = _mm256_permute2f128_ps(t[j], t[j + 4], 0x31);
    }
  }
};

}  // namespace
}  // namespace kvcast

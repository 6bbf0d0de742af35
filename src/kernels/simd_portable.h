// Four lanes in the vector types that GCC and clang have for every processor, behind the names that
// the shared kernel templates use (see simd_avx512.h). Little-endian, as all that is stored is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "kernels/unroll.h"

namespace kvcast {
namespace {

struct Simd {
  static constexpr int kWidth = 4;
  using F [[gnu::vector_size(16)]] = float;
  using I [[gnu::vector_size(16)]] = int32_t;
  static constexpr int kTileRows = 4;
  static constexpr int kTileVectors = 2;
  static constexpr int kVectorTileVectors = 4;

  static F zero() { return F{}; }
  static F set(float x) { return F{x, x, x, x}; }
  static F load(const float* p) { return loaded<F>(p); }
  static void store(float* p, F x) { std::memcpy(p, &x, sizeof(x)); }
  static F load_first(const float* p, int64_t n) {
    F r{};
    for (int i = 0; i < kWidth && i < n; ++i) r[i] = p[i];
    return r;
  }
  static void store_first(float* p, F x, int64_t n) {
    for (int i = 0; i < kWidth && i < n; ++i) p[i] = x[i];
  }
  static F first_or(F x, F y, int64_t n) {
    const I lanes{0, 1, 2, 3};
    return lanes < set_int(static_cast<int32_t>(n < kWidth ? n : kWidth)) ? x : y;
  }
  static F add(F x, F y) { return x + y; }
  static F sub(F x, F y) { return x - y; }
  static F mul(F x, F y) { return x * y; }
  static F div(F x, F y) { return x / y; }
  static F fma(F x, F y, F z) { return x * y + z; }
  using Repeated = F;
  static Repeated repeat(const float* p) { return set(*p); }
  static F fma_repeated(Repeated x, F y, F z) { return fma(x, y, z); }
  static F max(F x, F y) { return x > y ? x : y; }
  static F min(F x, F y) { return x < y ? x : y; }
  static F abs(F x) { return as_float(and_int(as_int(x), set_int(0x7fffffff))); }
  /// To the nearest whole number, ties to even, for |x| < 2^22: adding 1.5 * 2^23 drops the
  /// fraction in the default rounding mode.
  static F round(F x) {
    const F shift = set(12582912.0F), shifted = x + shift;
    return shifted - shift;
  }
  static F scale_by_power(F x, F n) {
    const I exponent = __builtin_convertvector(n, I) + set_int(127);
    return x * as_float(shift_left_int(exponent > zero_int() ? exponent : zero_int(), 23));
  }
  static float sum(F x) { return (x[0] + x[2]) + (x[1] + x[3]); }
  static float largest(F x) {
    float r = x[0];
    for (int i = 1; i < kWidth; ++i) r = x[i] > r ? x[i] : r;
    return r;
  }

  static I zero_int() { return I{}; }
  static I load_int(const std::byte* p) { return loaded<I>(p); }
  static void store_int(std::byte* p, I x) { std::memcpy(p, &x, sizeof(x)); }
  static I set_int(int32_t x) { return I{x, x, x, x}; }
  static I xor_int(I x, I y) { return x ^ y; }
  static I sub_int(I x, I y) { return as_signed(as_unsigned(x) - as_unsigned(y)); }
  static I and_int(I x, I y) { return x & y; }
  static I shift_right_int(I x, int n) { return as_signed(as_unsigned(x) >> count(n)); }
  static I shift_left_int(I x, int n) { return as_signed(as_unsigned(x) << count(n)); }
  static F load_f16(const std::byte* p) {
    uint16_t halves[kWidth];
    std::memcpy(halves, p, sizeof(halves));
    return F{f16_to_float(halves[0]), f16_to_float(halves[1]), f16_to_float(halves[2]),
             f16_to_float(halves[3])};
  }
  static F to_float(I x) { return __builtin_convertvector(x, F); }
  static I to_int(F x) { return __builtin_convertvector(round(x), I); }
  static F as_float(I x) { return reinterpret_cast<F>(x); }
  static I as_int(F x) { return reinterpret_cast<I>(x); }
  static F load_bf16(const uint16_t* p) {
    using Halves [[gnu::vector_size(8)]] = uint16_t;
    return as_float(as_signed(__builtin_convertvector(loaded<Halves>(p), U) << count(16)));
  }
  static F load_int8(const int8_t* p) {
    return F{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
             static_cast<float>(p[3])};
  }
  static void store_bf16(uint16_t* p, F x, int64_t n = kWidth) {
    for (int i = 0; i < kWidth && i < n; ++i) p[i] = float_to_bf16(x[i]);
  }
  static I high_halves(I x) { return x & set_int(-65536); }

  static I add_int(I x, I y) { return as_signed(as_unsigned(x) + as_unsigned(y)); }
  /// Four int8 per lane -> elements 0 and 2 (even) or 1 and 3 (odd) as two int16.
  static I widen_even(I x) { return widen_odd(pairs_shifted(x)); }
  static I widen_odd(I x) { return reinterpret_cast<I>(reinterpret_cast<Pairs>(x) >> kByte); }
  static I multiply_pairs(I x, I y) {
    return low_halves(x) * low_halves(y) + (x >> set_int(16)) * (y >> set_int(16));
  }
  static I add_products_of_pairs(I sum, I x, I y) { return add_int(sum, multiply_pairs(x, y)); }
  /// The low byte of each lane: kWidth bytes.
  static void store_bytes(std::byte* p, I x) {
    for (int i = 0; i < kWidth; ++i) p[i] = static_cast<std::byte>(x[i]);
  }
  /// The low halves of the lanes as int16, every four in the order 0, 2, 1, 3 of widen_*.
  static void store_widened(std::byte* p, I x) {
    const int16_t halves[4] = {static_cast<int16_t>(x[0]), static_cast<int16_t>(x[2]),
                               static_cast<int16_t>(x[1]), static_cast<int16_t>(x[3])};
    std::memcpy(p, halves, sizeof(halves));
  }

  static void transpose(F (&x)[kWidth]) {
    for (int i = 0; i < kWidth; ++i) {
      for (int j = i + 1; j < kWidth; ++j) {
        const float t = x[i][j];
        x[i][j] = x[j][i];
        x[j][i] = t;
      }
    }
  }

 private:
  using U [[gnu::vector_size(16)]] = uint32_t;  // wraps where I must not
  using Pairs [[gnu::vector_size(16)]] = int16_t;
  using UnsignedPairs [[gnu::vector_size(16)]] = uint16_t;
  static constexpr Pairs kByte{8, 8, 8, 8, 8, 8, 8, 8};

  template <typename V>
  static V loaded(const void* p) {
    V r;
    std::memcpy(&r, p, sizeof(r));
    return r;
  }
  static U as_unsigned(I x) { return reinterpret_cast<U>(x); }
  static I as_signed(U x) { return reinterpret_cast<I>(x); }
  static U count(int n) { return as_unsigned(set_int(n)); }
  static I low_halves(I x) { return shift_left_int(x, 16) >> set_int(16); }
  /// Each int16's low byte in the place of its high one.
  static I pairs_shifted(I x) {
    return reinterpret_cast<I>(reinterpret_cast<UnsignedPairs>(x)
                               << reinterpret_cast<UnsignedPairs>(kByte));
  }
};

}  // namespace
}  // namespace kvcast

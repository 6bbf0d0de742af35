// Four lanes in plain C++ behind the names that the shared kernel templates use (see
// simd_avx512.h). Compilers turn these loops into whatever the baseline has.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "kernels/unroll.h"

namespace kvcast {
namespace {

struct Simd {
  static constexpr int kWidth = 4;
  struct F {
    float lane[kWidth];
  };
  struct I {
    int32_t lane[kWidth];
  };
  static constexpr int kTileRows = 4;
  static constexpr int kTileVectors = 2;
  static constexpr int kVectorTileVectors = 4;

  template <typename Function>
  static KVCAST_INLINE F each(Function&& function) {
    F r;
    KVCAST_UNROLL
    for (int i = 0; i < kWidth; ++i) r.lane[i] = function(i);
    return r;
  }
  template <typename Function>
  static KVCAST_INLINE I each_int(Function&& function) {
    I r;
    KVCAST_UNROLL
    for (int i = 0; i < kWidth; ++i) r.lane[i] = function(i);
    return r;
  }

  static F zero() { return set(0.0F); }
  static F set(float x) {
    return each([&](int) { return x; });
  }
  static F load(const float* p) {
    F r;
    std::memcpy(r.lane, p, sizeof(r.lane));
    return r;
  }
  static void store(float* p, F x) { std::memcpy(p, x.lane, sizeof(x.lane)); }
  static F load_first(const float* p, int64_t n) {
    return each([&](int i) { return i < n ? p[i] : 0.0F; });
  }
  static void store_first(float* p, F x, int64_t n) {
    for (int i = 0; i < kWidth && i < n; ++i) p[i] = x.lane[i];
  }
  static F first_or(F x, F y, int64_t n) {
    return each([&](int i) { return i < n ? x.lane[i] : y.lane[i]; });
  }
  static F add(F x, F y) {
    return each([&](int i) { return x.lane[i] + y.lane[i]; });
  }
  static F sub(F x, F y) {
    return each([&](int i) { return x.lane[i] - y.lane[i]; });
  }
  static F mul(F x, F y) {
    return each([&](int i) { return x.lane[i] * y.lane[i]; });
  }
  static F div(F x, F y) {
    return each([&](int i) { return x.lane[i] / y.lane[i]; });
  }
  static F fma(F x, F y, F z) {
    return each([&](int i) { return x.lane[i] * y.lane[i] + z.lane[i]; });
  }
  using Repeated = F;
  static Repeated repeat(const float* p) { return set(*p); }
  static F fma_repeated(Repeated x, F y, F z) { return fma(x, y, z); }
  static F max(F x, F y) {
    return each([&](int i) { return x.lane[i] > y.lane[i] ? x.lane[i] : y.lane[i]; });
  }
  static F min(F x, F y) {
    return each([&](int i) { return x.lane[i] < y.lane[i] ? x.lane[i] : y.lane[i]; });
  }
  static F abs(F x) {
    return each([&](int i) { return std::fabs(x.lane[i]); });
  }
  /// To the nearest whole number, ties to even, for |x| < 2^22: adding 1.5 * 2^23 drops the
  /// fraction in the default rounding mode.
  static F round(F x) {
    return each([&](int i) {
      const float shifted = x.lane[i] + 12582912.0F;
      return shifted - 12582912.0F;
    });
  }
  static F scale_by_power(F x, F n) {
    return each([&](int i) {
      const int32_t exponent = static_cast<int32_t>(n.lane[i]) + 127;
      const int32_t bits = (exponent > 0 ? exponent : 0) * (1 << 23);
      float power;
      std::memcpy(&power, &bits, sizeof(power));
      return x.lane[i] * power;
    });
  }
  static float sum(F x) { return (x.lane[0] + x.lane[2]) + (x.lane[1] + x.lane[3]); }
  static float largest(F x) {
    float r = x.lane[0];
    for (int i = 1; i < kWidth; ++i) r = x.lane[i] > r ? x.lane[i] : r;
    return r;
  }

  static I zero_int() { return set_int(0); }
  static I load_int(const std::byte* p) {
    I r;
    std::memcpy(r.lane, p, sizeof(r.lane));
    return r;
  }
  static void store_int(std::byte* p, I x) { std::memcpy(p, x.lane, sizeof(x.lane)); }
  static I set_int(int32_t x) {
    return each_int([&](int) { return x; });
  }
  static I xor_int(I x, I y) {
    return each_int([&](int i) { return x.lane[i] ^ y.lane[i]; });
  }
  static I sub_int(I x, I y) {
    return each_int([&](int i) { return x.lane[i] - y.lane[i]; });
  }
  static I and_int(I x, I y) {
    return each_int([&](int i) { return x.lane[i] & y.lane[i]; });
  }
  static I shift_right_int(I x, int n) {
    return each_int(
        [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) >> n); });
  }
  static F load_f16(const std::byte* p) {
    uint16_t halves[kWidth];
    std::memcpy(halves, p, sizeof(halves));
    return each([&](int i) { return f16_to_float(halves[i]); });
  }
  static I shift_left_int(I x, int n) {
    return each_int(
        [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) << n); });
  }
  static F to_float(I x) {
    return each([&](int i) { return static_cast<float>(x.lane[i]); });
  }
  static I to_int(F x) {
    const F rounded = round(x);
    return each_int([&](int i) { return static_cast<int32_t>(rounded.lane[i]); });
  }
  static F as_float(I x) {
    F r;
    std::memcpy(r.lane, x.lane, sizeof(r.lane));
    return r;
  }
  static I as_int(F x) {
    I r;
    std::memcpy(r.lane, x.lane, sizeof(r.lane));
    return r;
  }
  static F load_bf16(const uint16_t* p) {
    return as_float(
        each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(p[i]) << 16); }));
  }
  static F load_int8(const int8_t* p) {
    return each([&](int i) { return static_cast<float>(p[i]); });
  }
  static void store_bf16(uint16_t* p, F x, int64_t n = kWidth) {
    for (int i = 0; i < kWidth && i < n; ++i) p[i] = float_to_bf16(x.lane[i]);
  }
  static I high_halves(I x) {
    return each_int([&](int i) { return x.lane[i] & -65536; });
  }

  static I add_int(I x, I y) {
    return each_int([&](int i) {  // wraps, as vectors do
      return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) +
                                  static_cast<uint32_t>(y.lane[i]));
    });
  }
  /// Four int8 per lane -> elements 0 and 2 (even) or 1 and 3 (odd) as two int16.
  static I widen_even(I x) {
    return each_int([&](int i) {
      const auto bits = static_cast<uint32_t>(x.lane[i]);
      const auto low = static_cast<int8_t>(bits & 0xffU);
      const auto high = static_cast<int8_t>((bits >> 16) & 0xffU);
      return static_cast<int32_t>((static_cast<uint32_t>(high) << 16) |
                                  (static_cast<uint32_t>(low) & 0xffffU));
    });
  }
  static I widen_odd(I x) {
    return widen_even(each_int(
        [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x.lane[i]) >> 8); }));
  }
  static I multiply_pairs(I x, I y) {
    return each_int([&](int i) {
      const auto low = [](int32_t v) { return static_cast<int32_t>(static_cast<int16_t>(v)); };
      return low(x.lane[i]) * low(y.lane[i]) + (x.lane[i] >> 16) * (y.lane[i] >> 16);
    });
  }
  static I add_products_of_pairs(I sum, I x, I y) { return add_int(sum, multiply_pairs(x, y)); }
  /// The low byte of each lane: kWidth bytes.
  static void store_bytes(std::byte* p, I x) {
    for (int i = 0; i < kWidth; ++i) p[i] = static_cast<std::byte>(x.lane[i]);
  }
  /// The low halves of the lanes as int16, every four in the order 0, 2, 1, 3 of widen_*.
  static void store_widened(std::byte* p, I x) {
    const int16_t halves[4] = {static_cast<int16_t>(x.lane[0]), static_cast<int16_t>(x.lane[2]),
                               static_cast<int16_t>(x.lane[1]), static_cast<int16_t>(x.lane[3])};
    std::memcpy(p, halves, sizeof(halves));
  }

  static void transpose(F (&x)[kWidth]) {
    for (int i = 0; i < kWidth; ++i) {
      for (int j = i + 1; j < kWidth; ++j) {
        const float t = x[i].lane[j];
        x[i].lane[j] = x[j].lane[i];
        x[j].lane[i] = t;
      }
    }
  }
};

}  // namespace
}  // namespace kvcast

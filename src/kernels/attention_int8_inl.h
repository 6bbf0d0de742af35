// Attention over a cache of 8 bits in whole numbers: codes widened to 16 bits, queries and
// probabilities rounded to 16 bits, exact sums in 32 bits. What is rounded is finer than in bf16
// (to 2^-16 of a query's largest element), a code costs less to unpack than a float, and a
// multiply-add does twice as many products as one of f32. Included after attention_inl.h.
#pragma once

#include "kernels/table_inl.h"

namespace kvcast {
namespace {

/// Pairs of 16-bit products.
struct DotPairs {
  using Accumulator = Simd::I;
  static constexpr int kSteps = 1;
  static constexpr bool kIntegers = true;
  static Accumulator zero() { return Simd::zero_int(); }
  static void store(std::byte* p, Accumulator x) { Simd::store_int(p, x); }
  static Simd::I weights(const std::byte* p) { return Simd::load_int(p); }
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Simd::I activation(const std::byte* p) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(p));
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return Simd::add_products_of_pairs(c, a, b);
  }
};

template <class DotType>
struct CacheInt8 : CachedRows<int8_t> {
  using Dot = DotType;
  static constexpr int64_t kPerGroup = 2;
  static constexpr bool kIntegers = true;

  static KVCAST_INLINE Simd::F load_groups(const int8_t* row, int64_t group, int64_t count) {
    if (count >= Simd::kWidth) return Simd::as_float(Simd::load_bytes_in_pairs(row + 2 * group));
    int8_t padded[2 * Simd::kWidth] = {};
    for (int64_t i = 0; i < 2 * count; ++i) padded[i] = row[2 * group + i];
    return Simd::as_float(Simd::load_bytes_in_pairs(padded));
  }
  static float store_query(const float* q, int64_t head_dim, float factor, float* out) {
    float turned[kMostHeadElements];
    for (int64_t i = 0; i < head_dim; ++i) turned[i] = q[i];
    rotate_head(turned, head_dim);
    Simd::F lanes = Simd::zero(), zero_or_nan = Simd::zero();
    for_each_lane_group(0, head_dim, [&](int64_t i, int64_t count) {
      const Simd::F x = load_up_to(turned + i, count);
      lanes = Simd::max(lanes, Simd::abs(x));
      zero_or_nan = Simd::fma(x, Simd::zero(), zero_or_nan);
    });
    const float largest = Simd::largest(lanes);
    const float not_finite = Simd::sum(zero_or_nan);
    const bool numbers = not_finite == 0.0F && largest >= kSmallestLargest;
    const Simd::F inverse = Simd::set(numbers ? kLargestHalf / largest : 0.0F);
    for_each_lane_group(0, head_dim, [&](int64_t i, int64_t count) {
      const Simd::F x = load_up_to(turned + i, count);
      const Simd::I n = numbers ? Simd::to_int(Simd::mul(x, inverse)) : Simd::zero_int();
      Simd::store_halves(reinterpret_cast<int16_t*>(out) + i, n);
    });
    return not_finite != 0.0F ? not_finite : largest / kLargestHalf * factor;
  }
  static KVCAST_INLINE Simd::F probabilities(Simd::F x) {
    return exp2_up_to_zero(x, exp2_fraction);
  }
  static KVCAST_INLINE void store_probabilities(float* row, int64_t i, Simd::F p) {
    Simd::store_halves(reinterpret_cast<int16_t*>(row) + i, Simd::to_int(p));
  }
  /// values [keys] rows -> [keys / 2, width] pairs of keys.
  static const void* prepare_values(const int8_t* values, int64_t keys, int64_t head_dim,
                                    int64_t width, float* out) {
    auto* const pairs = reinterpret_cast<std::byte*>(out);
    const int64_t row_bytes = stride(head_dim);
    const Simd::I low_half = Simd::set_int(0xffff);
    for (int64_t j = 0; j < keys; j += 2) {
      const int8_t* const even = values + j * row_bytes + kFirst;
      for (int64_t i = 0; i < width; i += Simd::kWidth) {
        const Simd::I low = load_codes(even + i, head_dim - i);
        const Simd::I high =
            j + 1 < keys ? load_codes(even + row_bytes + i, head_dim - i) : Simd::zero_int();
        Simd::store_int(
            pairs + (j / 2 * width + i) * 4,
            Simd::add_int(Simd::and_int(low, low_half), Simd::shift_left_int(high, 16)));
      }
    }
    return out;
  }

 private:
  static KVCAST_INLINE Simd::I load_codes(const int8_t* p, int64_t count) {
    if (count >= Simd::kWidth) return Simd::load_bytes(p);
    int8_t padded[Simd::kWidth] = {};
    for (int64_t i = 0; i < count; ++i) padded[i] = p[i];
    return Simd::load_bytes(padded);
  }
};

}  // namespace
}  // namespace kvcast

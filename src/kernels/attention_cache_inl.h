// How attention reads a cache, per element type: keys and values of a block of 64 become operands
// of small products. Included after the file's Simd and small_product_inl.h.
#pragma once

#include "kernels/math_inl.h"
#include "kernels/small_product_inl.h"

namespace kvcast {
namespace {

constexpr int64_t kKeyBlock = 64;
constexpr int64_t kGroupsPerLine = 16;

/// Keys and values multiplied as f32, whatever they are held as.
template <typename ElementType>
struct CacheInF32 {
  using Element = ElementType;
  using Dot = DotF32;
  static constexpr int64_t kPerGroup = 1;  ///< elements in the 4-byte group of a product

  /// `count` groups of a row from `group` on, at most kWidth; the rest zero.
  static KVCAST_INLINE Simd::F load_groups(const Element* row, int64_t group, int64_t count) {
    if constexpr (sizeof(Element) == sizeof(float)) {
      return count >= Simd::kWidth ? Simd::load(row + group) : Simd::load_first(row + group, count);
    } else {
      if (count >= Simd::kWidth) return Simd::load_bf16(row + group);
      Element padded[Simd::kWidth] = {};
      for (int64_t i = 0; i < count; ++i) padded[i] = row[group + i];
      return Simd::load_bf16(padded);
    }
  }
  /// A query, scaled, as the left operand of a product.
  static void store_query(const float* q, int64_t head_dim, float factor, float* out) {
    for (int64_t i = 0; i < head_dim; ++i) out[i] = q[i] * factor;
  }
  /// 2^x for x <= 0, as exact as the operand of a product needs it; not zero.
  static KVCAST_INLINE Simd::F probabilities(Simd::F x) {
    return exp2_up_to_zero(x, exp2_fraction);
  }
  /// Probabilities i, i + 1, ... of a row of 64 scores, as the left operand of a product: in place,
  /// behind what is still to be read of the row.
  static KVCAST_INLINE void store_probabilities(float* row, int64_t i, Simd::F p) {
    Simd::store(row + i, p);
  }
  /// values [keys, head_dim] -> f32 rows of `width`, zero-padded; or the cache itself, if
  /// that is what it holds.
  static const void* prepare_values(const Element* values, int64_t keys, int64_t head_dim,
                                    int64_t width, float* out) {
    if constexpr (sizeof(Element) == sizeof(float)) {
      if (width == head_dim) return values;
    }
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t i = 0; i < width; i += Simd::kWidth) {
        Simd::store(out + j * width + i, load_groups(values + j * head_dim, i, head_dim - i));
      }
    }
    return out;
  }
};
using CacheF32 = CacheInF32<float>;
using CacheBf16Widened = CacheInF32<uint16_t>;

/// out <- transpose of `count` keys, zero beyond. [head_dim / kPerGroup, 64] groups
/// If `values` is not null, the next 64 keys and values, or whatever lies there, are fetched
/// meanwhile, some at a time: many requests at once hold up the loads that come after them.
template <class Cache>
void load_keys(const typename Cache::Element* keys, int64_t count, int64_t head_dim, float* out,
               const typename Cache::Element* values) {
  constexpr int64_t kWidth = Simd::kWidth;
  const int64_t groups = head_dim / Cache::kPerGroup;
  for (int64_t j = 0; j < kKeyBlock; j += kWidth) {
    for (int64_t i = 0; i < groups; i += kWidth) {
      if (values != nullptr && i % kGroupsPerLine == 0) {
        const int64_t next = (kKeyBlock + j) * head_dim + i * Cache::kPerGroup;
        KVCAST_UNROLL
        for (int64_t x = 0; x < kWidth; ++x) {
          __builtin_prefetch(keys + next + x * head_dim, 0, 2);
          __builtin_prefetch(values + next + x * head_dim, 0, 2);
        }
      }
      Simd::F square[kWidth];
      KVCAST_UNROLL
      for (int64_t x = 0; x < kWidth; ++x) {
        square[x] = j + x < count ? Cache::load_groups(keys + (j + x) * head_dim, i, groups - i)
                                  : Simd::zero();
      }
      Simd::transpose(square);
      KVCAST_UNROLL
      for (int64_t x = 0; x < kWidth; ++x) Simd::store(out + (i + x) * kKeyBlock + j, square[x]);
    }
  }
}

}  // namespace
}  // namespace kvcast

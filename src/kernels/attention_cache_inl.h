// How attention reads a cache, per element type: keys and values of a block of 64 become operands
// of small products. Included after the file's Simd and small_product_inl.h.
#pragma once

#include "kernels/math_inl.h"
#include "kernels/rotation_inl.h"
#include "kernels/small_product_inl.h"

namespace kvcast {
namespace {

constexpr int64_t kKeyBlock = 64;
constexpr int64_t kLineBytes = 64;

/// How rows of a head lie in a cache of such elements.
template <typename ElementType>
struct CachedRows {
  using Element = ElementType;
  /// The products take codes; scores and probabilities are multiplied by the rows' steps.
  static constexpr bool kScaled = sizeof(Element) == 1;
  /// Queries and probabilities are whole numbers, with a step for each query.
  static constexpr bool kIntegers = false;
  static constexpr int64_t kFirst = kScaled ? kKvStepBytes : 0;  ///< before a row's elements

  static int64_t stride(int64_t head_dim) { return kFirst + head_dim; }
};

/// The steps of `count` rows, zero beyond. [64]
void load_steps(const int8_t* rows, int64_t stride, int64_t count, float* steps) {
  for (int64_t j = 0; j < kKeyBlock; ++j) steps[j] = 0.0F;
  for (int64_t j = 0; j < count; ++j) {
    __builtin_memcpy(steps + j, rows + j * stride, sizeof(float));
  }
}

/// Keys and values multiplied as f32, whatever they are held as.
template <typename ElementType>
struct CacheInF32 : CachedRows<ElementType> {
  using Element = ElementType;
  using Dot = DotF32;
  static constexpr int64_t kPerGroup = 1;  ///< elements in the 4-byte group of a product

  /// `count` groups of a row from `group` on, at most kWidth; the rest zero.
  static KVCAST_INLINE Simd::F load_groups(const Element* row, int64_t group, int64_t count) {
    if constexpr (sizeof(Element) == sizeof(float)) {
      return count >= Simd::kWidth ? Simd::load(row + group) : Simd::load_first(row + group, count);
    } else {
      if (count >= Simd::kWidth) return widen(row + group);
      Element padded[Simd::kWidth] = {};
      for (int64_t i = 0; i < count; ++i) padded[i] = row[group + i];
      return widen(padded);
    }
  }
  /// A query, scaled, as the left operand of a product; what the sums are multiplied by.
  static float store_query(const float* q, int64_t head_dim, float factor, float* out) {
    for (int64_t i = 0; i < head_dim; ++i) out[i] = q[i] * factor;
    if constexpr (CacheInF32::kScaled) rotate_head(out, head_dim);
    return 1.0F;
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
  /// values [keys] rows -> f32 rows of `width`, zero-padded; or the cache itself, if that is what
  /// it holds.
  static const void* prepare_values(const Element* values, int64_t keys, int64_t head_dim,
                                    int64_t width, float* out) {
    if constexpr (sizeof(Element) == sizeof(float)) {
      if (width == head_dim) return values;
    }
    const int64_t stride = CacheInF32::stride(head_dim);
    for (int64_t j = 0; j < keys; ++j) {
      const Element* const row = values + j * stride + CacheInF32::kFirst;
      for (int64_t i = 0; i < width; i += Simd::kWidth) {
        Simd::store(out + j * width + i, load_groups(row, i, head_dim - i));
      }
    }
    return out;
  }

 private:
  static Simd::F widen(const uint16_t* p) { return Simd::load_bf16(p); }
  static Simd::F widen(const int8_t* p) { return Simd::load_int8(p); }
};
using CacheF32 = CacheInF32<float>;
using CacheBf16Widened = CacheInF32<uint16_t>;
using CacheInt8Widened = CacheInF32<int8_t>;

/// out <- transpose of `count` keys, zero beyond. [head_dim / kPerGroup, 64] groups
/// If `values` is not null, the next 64 keys and values, or whatever lies there, are fetched
/// meanwhile, some at a time: many requests at once hold up the loads that come after them.
template <class Cache>
void load_keys(const typename Cache::Element* keys, int64_t count, int64_t head_dim, float* out,
               const typename Cache::Element* values) {
  constexpr int64_t kWidth = Simd::kWidth;
  constexpr int64_t kGroupBytes = Cache::kPerGroup * sizeof(typename Cache::Element);
  const int64_t groups = head_dim / Cache::kPerGroup, stride = Cache::stride(head_dim);
  for (int64_t j = 0; j < kKeyBlock; j += kWidth) {
    for (int64_t i = 0; i < groups; i += kWidth) {
      if (values != nullptr && i * kGroupBytes % kLineBytes == 0) {
        const int64_t next = (kKeyBlock + j) * stride + i * Cache::kPerGroup;
        KVCAST_UNROLL
        for (int64_t x = 0; x < kWidth; ++x) {
          __builtin_prefetch(keys + next + x * stride, 0, 2);
          __builtin_prefetch(values + next + x * stride, 0, 2);
        }
      }
      Simd::F square[kWidth];
      KVCAST_UNROLL
      for (int64_t x = 0; x < kWidth; ++x) {
        square[x] = j + x < count
                        ? Cache::load_groups(keys + (j + x) * stride + Cache::kFirst, i, groups - i)
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

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

/// Attention's products in bf16: pairs along head_dim in the scores, of keys in the mix.
struct OperandsInBf16 {
  using Dot = DotBf16;
  static constexpr int64_t kPerGroup = 2;

  static void store_query(const float* q, int64_t head_dim, float factor, float* out) {
    auto* const halves = reinterpret_cast<uint16_t*>(out);
    for (int64_t i = 0; i < head_dim; i += Simd::kWidth) {
      const Simd::F x = Simd::mul(Simd::load_first(q + i, head_dim - i), Simd::set(factor));
      Simd::store_bf16(halves + i, x);
    }
  }
  static KVCAST_INLINE Simd::F probabilities(Simd::F x) {
    return exp2_up_to_zero(x, exp2_fraction_for_bf16);
  }
  static KVCAST_INLINE void store_probabilities(float* row, int64_t i, Simd::F p) {
    Simd::store_bf16(reinterpret_cast<uint16_t*>(row) + i, p);
  }

 protected:
  /// values [keys] rows -> [keys / 2, width] pairs of keys. load(row, i, count): 16 elements from i
  /// on, bf16 in the low halves of 32 bits.
  template <class Rows, typename Load>
  static const void* prepare_pairs(const typename Rows::Element* values, int64_t keys,
                                   int64_t head_dim, int64_t width, float* out, Load&& load) {
    auto* const pairs = reinterpret_cast<std::byte*>(out);
    const int64_t stride = Rows::stride(head_dim);
    for (int64_t j = 0; j < keys; j += 2) {
      const auto* const even = values + j * stride + Rows::kFirst;
      for (int64_t i = 0; i < width; i += Simd::kWidth) {
        const Simd::I low = load(even, i, head_dim - i);
        const Simd::I high = j + 1 < keys ? load(even + stride, i, head_dim - i) : Simd::zero_int();
        Simd::store_int(pairs + (j / 2 * width + i) * 4,
                        _mm512_or_si512(low, Simd::shift_left_int(high, 16)));
      }
    }
    return out;
  }
};

/// bf16 keys and values as they are.
struct CacheBf16Dot : CachedRows<uint16_t>, OperandsInBf16 {
  static KVCAST_INLINE Simd::F load_groups(const uint16_t* row, int64_t group, int64_t count) {
    return Simd::load_first(reinterpret_cast<const float*>(row) + group, count);
  }
  static const void* prepare_values(const uint16_t* values, int64_t keys, int64_t head_dim,
                                    int64_t width, float* out) {
    const auto load = [](const uint16_t* row, int64_t i, int64_t count) KVCAST_LAMBDA_INLINE {
      return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(Simd::mask(count), row + i));
    };
    return prepare_pairs<CachedRows>(values, keys, head_dim, width, out, load);
  }
};

/// Codes of 8 bits, which bf16 holds exactly.
struct CacheInt8Dot : CachedRows<int8_t>, OperandsInBf16 {
  static KVCAST_INLINE Simd::F load_groups(const int8_t* row, int64_t group, int64_t count) {
    const __mmask32 mask = count >= 16 ? 0xffffffffU : (1U << (2 * count)) - 1U;
    const __m256i bytes = _mm256_maskz_loadu_epi8(mask, row + 2 * group);
    const Simd::F low = Simd::to_float(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
    const Simd::F high = Simd::to_float(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
    return Simd::as_float((Simd::I)_mm512_cvtne2ps_pbh(high, low));
  }
  static const void* prepare_values(const int8_t* values, int64_t keys, int64_t head_dim,
                                    int64_t width, float* out) {
    const auto load = [](const int8_t* row, int64_t i, int64_t count) KVCAST_LAMBDA_INLINE {
      const __m128i bytes = _mm_maskz_loadu_epi8(Simd::mask(count), row + i);
      const Simd::F floats = Simd::to_float(_mm512_cvtepi8_epi32(bytes));
      return Simd::shift_right_int(Simd::as_int(floats), 16);
    };
    return prepare_pairs<CachedRows>(values, keys, head_dim, width, out, load);
  }
};

void convert_bf16(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    auto* const out = reinterpret_cast<uint16_t*>(c.out + r * c.out_stride_bytes);
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * 2,
                    [&](int64_t i, Simd::F x) { Simd::store_bf16(out + i, x); });
  }
}

double spin_avx512bf16(WeightType type, int64_t iterations) {
  if (type == WeightType::kBf16) return spin_dot<DotBf16>(iterations, 4.0);
  if (is_integer(type)) return spin_dot<DotInt8Vnni>(iterations, 8.0);
  return spin_dot<DotF32>(iterations, 2.0);
}

KernelTable avx512bf16_table(Isa isa) {
  KernelTable t = base_table(isa);
  t.bf16.f32_activations = false;
  t.bf16.bf16_activations = true;
  t.bf16.group_bytes = 4;
  t.bf16.convert = convert_bf16;
  set_product<DotBf16>(t.bf16);
  t.attention_bf16 = attention_kernels<CacheBf16Dot>();
  t.attention_int8 = attention_kernels<CacheInt8Dot>();
  set_vnni_products(t);
  t.spin = spin_avx512bf16;
  return t;
}

}  // namespace
}  // namespace kvcast

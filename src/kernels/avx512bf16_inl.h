// The instructions that BF16 and VNNI add. Included after table_inl.h.
#pragma once

#include "kernels/gemm_blocks_inl.h"
#include "kernels/table_inl.h"

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
struct CacheBf16Dot {
  using Element = uint16_t;
  using Dot = DotBf16;
  static constexpr int64_t kPerGroup = 2;

  static KVCAST_INLINE Simd::F load_groups(const uint16_t* row, int64_t group, int64_t count) {
    return Simd::load_first(reinterpret_cast<const float*>(row) + group, count);
  }
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

/// vpdpbusd: four products of unsigned activations (q + 128) and signed weights per lane.
struct DotInt8Vnni : DotInt8<128> {
  static constexpr int kSteps = 1;
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    // GCC 12 copies the sums of its own intrinsic from register to register, and spills some.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
    return c;
  }
};

/// The same of unsigned weights, u, and signed activations, for blocks. The sum starts at -128
/// times that of the activations; and as the last bits of a float as large as 2^23 times their
/// scale, so that the result is scaled when that is subtracted as a float. |sum| is below 2^20.
struct DotBlocksVnni : DotInt8Vnni {
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I w) {
    return DotInt8Vnni::multiply_add(c, w, a);
  }
  static Simd::I from_unsigned(Simd::I u) { return u; }
  static void store_header(std::byte* header, float scale, int32_t sum) {
    const float large = scale * 0x1.8p23F;
    uint32_t start;
    __builtin_memcpy(&start, &large, 4);
    start -= 128U * static_cast<uint32_t>(sum);
    __builtin_memcpy(header, &start, 4);
    __builtin_memcpy(header + 4, &large, 4);
  }
  static Simd::I begin(const std::byte* header) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(header));
  }
  static Simd::F end(Simd::I sum, const std::byte* header) {
    return Simd::sub(Simd::as_float(sum), Simd::set(*reinterpret_cast<const float*>(header + 4)));
  }
};

void convert_blocks_vnni(const ConvertArgs& c) {
  convert_to_blocks<DotBlocksVnni>(
      c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_bytes(out + i, q); });
}

void convert_bf16(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    auto* const out = reinterpret_cast<uint16_t*>(c.out + r * c.out_stride_bytes);
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * 2,
                    [&](int64_t i, Simd::F x) { Simd::store_bf16(out + i, x); });
  }
}

void convert_unsigned_int8(const ConvertArgs& c) {
  convert_int8(c, [](std::byte* out, int64_t i, Simd::I q) {
    Simd::store_bytes(out + i, Simd::xor_int(q, Simd::set_int(0x80)));
  });
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
  t.int8.group_bytes = 4;
  t.int8.convert = convert_unsigned_int8;
  set_product<DotInt8Vnni>(t.int8);
  set_block_products<DotBlocksVnni>(t, convert_blocks_vnni);
  t.spin = spin_avx512bf16;
  return t;
}

}  // namespace
}  // namespace kvcast

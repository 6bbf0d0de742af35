// The instructions that BF16 and VNNI add. Included after table_inl.h.
#pragma once

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

/// vpdpbusd: four products of unsigned activations (q + 128) and signed weights per lane.
struct DotInt8Vnni : DotInt8<128> {
  static constexpr int kSteps = 1;
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return _mm512_dpbusd_epi32(c, a, b);
  }
};

void convert_bf16(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    std::byte* const out = c.out + r * c.out_stride_bytes;
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * 2, [&](int64_t i, Simd::F x) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * i), (__m256i)_mm512_cvtneps_pbh(x));
    });
  }
}

void convert_unsigned_int8(const ConvertArgs& c) {
  convert_int8(c, [](std::byte* out, int64_t i, Simd::I q) {
    Simd::store_bytes(out + i, Simd::xor_int(q, Simd::set_int(0x80)));
  });
}

double spin_avx512bf16(WeightType type, int64_t iterations) {
  if (type == WeightType::kBf16) return spin_dot<DotBf16>(iterations, 4.0);
  if (type == WeightType::kInt8) return spin_dot<DotInt8Vnni>(iterations, 8.0);
  return spin_dot<DotF32>(iterations, 2.0);
}

KernelTable avx512bf16_table(Isa isa) {
  KernelTable t = base_table(isa);
  t.bf16.f32_activations = false;
  t.bf16.bf16_activations = true;
  t.bf16.group_bytes = 4;
  t.bf16.convert = convert_bf16;
  t.bf16.multiply = multiply<DotBf16>;
  t.int8.group_bytes = 4;
  t.int8.convert = convert_unsigned_int8;
  t.int8.multiply = multiply<DotInt8Vnni>;
  t.spin = spin_avx512bf16;
  return t;
}

}  // namespace
}  // namespace kvcast

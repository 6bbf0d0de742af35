// int8 products of AArch64's baseline, and of its dot product. Included after simd_neon.h.
#pragma once

#include "kernels/gemm_blocks_inl.h"
#include "kernels/table_inl.h"

namespace kvcast {
namespace {

/// Byte products in int16, summed in pairs to int16 (2 * 127 * 127 fits), then to int32. Exact.
struct DotInt8Neon : DotInt8<0> {
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static constexpr int kSteps = 1;
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    const int8x16_t x = vreinterpretq_s8_s32(a);
    const int8x16_t y = vreinterpretq_s8_s32(b);
    const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(y));
    return vpadalq_s16(c, vpaddq_s16(low, vmull_high_s8(x, y)));
  }
};

void convert_signed_int8(const ConvertArgs& c) {
  convert_int8(c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_bytes(out + i, q); });
}

void convert_signed_blocks(const ConvertArgs& c) {
  convert_to_blocks<SignedBlocks<DotInt8Neon>>(
      c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_bytes(out + i, q); });
}

#if defined(__ARM_FEATURE_DOTPROD)
/// sdot: four products of signed bytes per lane. One row's activations fill lane 0.
struct DotInt8Sdot : DotInt8<0> {
  static constexpr int kSteps = 1;
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Simd::I activation(const std::byte* p) {
    return Simd::load_lane_0(reinterpret_cast<const int32_t*>(p));
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return vdotq_laneq_s32(c, vreinterpretq_s8_s32(b), vreinterpretq_s8_s32(a), 0);
  }
};
using DotBytes = DotInt8Sdot;
#else
using DotBytes = DotInt8Neon;
#endif

double spin_neon(WeightType type, int64_t iterations) {
  if (is_integer(type)) return spin_dot<DotBytes>(iterations, 8.0);
  return spin_dot<DotF32>(iterations, 2.0);  // bf16 weights are widened
}

KernelTable neon_table(Isa isa) {
  KernelTable t = base_table(isa);
  t.int8.group_bytes = 4;
  t.int8.convert = convert_signed_int8;
  set_product<DotBytes>(t.int8);
  set_block_products<SignedBlocks<DotBytes>>(t, convert_signed_blocks);
  t.spin = spin_neon;
  return t;
}

}  // namespace
}  // namespace kvcast

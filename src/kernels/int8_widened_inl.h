// int8 products for instruction sets without byte dot products: both sides widened to int16.
#pragma once

#include "kernels/gemm_blocks_inl.h"
#include "kernels/table_inl.h"

namespace kvcast {
namespace {

/// Two multiply-adds of pairs. Exact.
struct DotInt8Widened : DotInt8<0> {
  static constexpr int kSteps = 2;
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return kStep == 0 ? Simd::widen_even(b) : Simd::widen_odd(b);
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return Simd::add_products_of_pairs(c, a, b);
  }
};

/// As int16 pairs for DotInt8Widened: 8 bytes a group.
void convert_int8_widened(const ConvertArgs& c) {
  convert_int8(c,
               [](std::byte* out, int64_t i, Simd::I q) { Simd::store_widened(out + 2 * i, q); });
}

void convert_blocks_widened(const ConvertArgs& c) {
  convert_to_blocks<SignedBlocks<DotInt8Widened>>(
      c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_widened(out + 2 * i, q); });
}

double spin_widened(WeightType type, int64_t iterations) {
  // bf16 weights are widened and multiplied as f32; int8 takes pairs of int16: 4 operations a lane.
  if (is_integer(type)) return spin_dot<DotInt8Widened>(iterations, 4.0);
  return spin_dot<DotF32>(iterations, 2.0);
}

KernelTable widened_table(Isa isa) {
  KernelTable t = base_table(isa);
  t.int8.group_bytes = 8;
  t.int8.convert = convert_int8_widened;
  set_product<DotInt8Widened>(t.int8);
  set_block_products<SignedBlocks<DotInt8Widened>>(t, convert_blocks_widened);
  t.spin = spin_widened;
  return t;
}

}  // namespace
}  // namespace kvcast

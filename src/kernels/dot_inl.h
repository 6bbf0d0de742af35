// The inner products of a register tile, per weight type. A Dot takes one 4-byte group of weights
// per column (a vector of columns) in kSteps steps, each with 4 bytes of activations of a row.
// Included after the file's Simd; anonymous for the reason given in simd_avx512.h.
#pragma once

#include "kernels/unroll.h"

namespace kvcast {
namespace {

/// f32 weights, f32 activations.
struct DotF32 {
  using Accumulator = Simd::F;
  static constexpr int kSteps = 1;
  static Accumulator zero() { return Simd::zero(); }
  static Accumulator load(const std::byte* p) {
    return Simd::load(reinterpret_cast<const float*>(p));
  }
  static void store(std::byte* p, Accumulator x) { Simd::store(reinterpret_cast<float*>(p), x); }
  static Simd::F weights(const std::byte* p) {
    return Simd::load(reinterpret_cast<const float*>(p));
  }
  template <int kStep>
  static Simd::F expand(Simd::F b) {
    return b;
  }
  static Simd::Repeated activation(const std::byte* p) {
    return Simd::repeat(reinterpret_cast<const float*>(p));
  }
  static Accumulator multiply_add(Accumulator c, Simd::Repeated a, Simd::F b) {
    return Simd::fma_repeated(a, b, c);
  }
};

/// bf16 weights widened in registers, f32 activations: even k, then odd k.
struct DotBf16Widened : DotF32 {
  static constexpr int kSteps = 2;
  static Simd::I weights(const std::byte* p) { return Simd::load_int(p); }
  template <int kStep>
  static Simd::F expand(Simd::I b) {
    return Simd::as_float(kStep == 0 ? Simd::shift_left_int(b, 16) : Simd::high_halves(b));
  }
};

}  // namespace
}  // namespace kvcast

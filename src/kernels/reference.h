// The plain twin of every kernel: one element at a time, double accumulators, one thread, no
// instruction set. What the fast kernels are tested against, and what to read to know what they do.
#pragma once

#include <span>

#include "kernels/kernels.h"

namespace kvcast::reference {

/// What happens to the activations before the product.
enum class Activations {
  kF32,         ///< used as they are
  kBf16,        ///< rounded to bf16
  kInt8,        ///< q = round(a * 127 / max|a|) per row
  kInt8Blocks,  ///< q = round(a / scale) for every 32, scale = 2^ceil(log2(max|a| / 127))
};

/// What weights of `type` imply; f32 and bf16 weights take activations as they are here.
Activations activations_of(WeightType type);
/// The rounding that int8 weights imply; f32 and bf16 weights take f32 activations here.
void matmul(const MatmulArgs& args);
/// With the rounding of a fast path that converts the activations of bf16 weights.
void matmul(const MatmulArgs& args, Activations activations);

void rms_norm(const RmsNormArgs& args);
void head_norm_rope(const HeadNormRopeArgs& args);
void silu_mul(const SiluMulArgs& args);
void attention(std::span<const AttentionArgs> sequences, const AttentionShape& shape);

}  // namespace kvcast::reference

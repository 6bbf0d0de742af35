// GGUF's block types: neighbours in a row stored as small codes that share a scale.
#pragma once

#include <cstddef>
#include <span>

#include "base/code_block.h"
#include "io/tensor.h"

namespace kvcast {

/// Whether rows of `dtype` are CodeBlocks without loss (Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K,
/// IQ4_NL). Q6_K is not: its scales are shared by 16.
bool has_code_blocks(DType dtype);

/// Bits of the largest code: 4, 5 or 8.
int code_bits(DType dtype);

/// Decodes whole stored blocks. `bytes` has any alignment; `out` as many blocks as it holds
/// elements / 32. scale * code + minimum equals, value by value, what dequantize() gives.
void decode_blocks(DType dtype, std::span<const std::byte> bytes, std::span<CodeBlock> out);

/// Whole stored blocks of a block type to f32, bit for bit as the format's reference code does it.
void dequantize(DType dtype, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace kvcast

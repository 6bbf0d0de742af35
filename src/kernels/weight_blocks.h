// Blocks of quantised weights: what a panel of kInt4Blocks or kInt8Blocks consists of.
//
// Every 32 elements along k of an output feature share a step, an f16. A weight is
//   step * code + minimum, code in 0 to 15, in kInt4Blocks, whose minimum is another f16;
//   step * (code - 128) in kInt8Blocks;
// so both multiply unsigned bytes. A minimum's part of a product is the minimum times the sum of
// the block's activations.
//
// Of the 64 features of a panel, 32 elements are
//   kInt8Blocks: codes [8 groups of 4 elements][64 features][4], then steps [64] f16: 2176 bytes;
//   kInt4Blocks: codes [4 pairs of groups][64 features][4], the even group's code in the lower half
//                of a byte, then steps [64] f16, then minimums [64] f16: 1280 bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/packed_matrix.h"

namespace kvcast {

inline constexpr int64_t kBlockGroups = PackedMatrix::kUnitGroups;
inline constexpr int64_t kInt4BlockBytes = PackedMatrix::unit_bytes(WeightType::kInt4Blocks);
inline constexpr int64_t kInt8BlockBytes = PackedMatrix::unit_bytes(WeightType::kInt8Blocks);
/// From the start of a panel's block.
inline constexpr int64_t kInt4Steps = kBlockGroups / 2 * PackedMatrix::kGroupRowBytes;
inline constexpr int64_t kInt4Minimums = kInt4Steps + PackedMatrix::kPanelColumns * 2;
inline constexpr int64_t kInt8Steps = kBlockGroups * PackedMatrix::kGroupRowBytes;

/// Blocks of one feature that are quantised at a time: consecutive along k.
inline constexpr int64_t kBlocksAtATime = 32;
struct ColumnBlocks {
  std::array<uint16_t, kBlocksAtATime> steps = {};     // f16
  std::array<uint16_t, kBlocksAtATime> minimums = {};  // f16, kInt4Blocks only
  std::array<uint8_t, kBlocksAtATime* kWeightBlock> codes = {};
};
/// Features whose blocks lie together in a panel's lines of memory.
inline constexpr int64_t kColumnsAtATime = 16;

/// Quantises `count` weights, at most kBlocksAtATime blocks of them; what is beyond becomes zero.
/// kInt4Blocks: minimising each block's sum of squared errors over some steps. If a block holds a
/// weight that is not finite, or too large for an f16, its step is NaN: its column of every product
/// is NaN, as it would be in f32.
void quantise_blocks(const float* weights, int64_t count, WeightType type, ColumnBlocks& out);
/// The same weights as `blocks` where the type can hold them; else quantised anew. `count` as
/// above.
void convert_blocks(const CodeBlock* blocks, int64_t count, WeightType type, ColumnBlocks& out);

/// Writes the first `blocks` blocks of kColumnsAtATime features, of which the first is column
/// `column` of the panel, a multiple of kColumnsAtATime.
void store_blocks(std::span<const ColumnBlocks, kColumnsAtATime> columns, int64_t blocks,
                  WeightType type, int64_t column, std::byte* panel_block);
/// The weights of one column of a panel's block.
void unpack_block(const std::byte* panel_block, WeightType type, int64_t column,
                  float (&out)[kWeightBlock]);

}  // namespace kvcast

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

#include "kernels/packed_matrix.h"

namespace kvcast {

inline constexpr int64_t kBlockGroups = PackedMatrix::kUnitGroups;
inline constexpr int64_t kInt4BlockBytes = PackedMatrix::unit_bytes(WeightType::kInt4Blocks);
inline constexpr int64_t kInt8BlockBytes = PackedMatrix::unit_bytes(WeightType::kInt8Blocks);
/// From the start of a panel's block.
inline constexpr int64_t kInt4Steps = kBlockGroups / 2 * PackedMatrix::kGroupRowBytes;
inline constexpr int64_t kInt4Minimums = kInt4Steps + PackedMatrix::kPanelColumns * 2;
inline constexpr int64_t kInt8Steps = kBlockGroups * PackedMatrix::kGroupRowBytes;

/// One feature's block.
struct QuantisedBlock {
  uint16_t step = 0;     // f16
  uint16_t minimum = 0;  // f16, kInt4Blocks only
  std::array<uint8_t, kWeightBlock> codes = {};
};

/// Quantises `count` weights (at most 32; the rest of the block is padding), minimising the sum of
/// squared errors over some steps. If one of them is not finite, or too large for an f16, the
/// block's step is NaN: its column of every product is NaN, as it would be in f32.
QuantisedBlock quantise_block(const float* weights, int64_t count, WeightType type);
/// The same weights as `block`, if the type can hold them; else quantised anew.
QuantisedBlock convert_block(const WeightBlock& block, int64_t count, WeightType type);

/// Puts a block where column `column` of a panel's block has it. 4-bit codes are combined with what
/// is there, which must have been zero.
void store_block(const QuantisedBlock& block, WeightType type, int64_t column,
                 std::byte* panel_block);
/// The weights of one column of a panel's block.
void unpack_block(const std::byte* panel_block, WeightType type, int64_t column,
                  float (&out)[kWeightBlock]);

}  // namespace kvcast

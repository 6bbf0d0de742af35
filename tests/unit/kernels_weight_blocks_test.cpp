#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "base/half.h"
#include "kernels/packed_matrix.h"
#include "kernels/weight_blocks.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

using kernel_testing::pack_floats;
using kernel_testing::random_floats;

std::vector<float> row_of(const PackedMatrix& matrix, int64_t row) {
  std::vector<float> out(static_cast<size_t>(matrix.k()));
  matrix.unpack_row(row, out);
  return out;
}

/// One matrix of one row, from blocks as a file holds them.
PackedMatrix pack_blocks(const std::vector<CodeBlock>& blocks, int64_t k, WeightType type) {
  const WeightRows rows{
      .floats = [](int64_t, int64_t, std::span<float>) { FAIL() << "blocks were given"; },
      .blocks =
          [&](int64_t, int64_t begin, std::span<CodeBlock> out) {
            std::copy_n(blocks.begin() + begin, out.size(), out.begin());
          }};
  return PackedMatrix::pack_rows(rows, 1, k, type, 1);
}

CodeBlock block_of(float scale, float minimum, int codes) {
  CodeBlock block{scale, minimum, {}};
  for (int i = 0; i < kWeightBlock; ++i) block.codes[i] = static_cast<uint8_t>(i * 7 % codes);
  return block;
}

/// Plain twins of what is vectorised, one block each; block.minimum stands for code 0.
std::vector<float> int8_twin(const float* weights, int64_t count) {
  float largest = 0.0F;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[i]));
  const float step = f16_to_float(float_to_f16(largest / 127.0F));
  std::vector<float> out;
  for (int64_t i = 0; i < count; ++i) {
    const float code = step == 0.0F ? 0.0F : std::nearbyint(weights[i] / step);
    out.push_back(step * std::clamp(code, -128.0F, 127.0F));
  }
  return out;
}

std::vector<float> convert_twin(const CodeBlock& block, WeightType type) {
  std::vector<float> exact, out;
  for (const uint8_t code : block.codes) {
    exact.push_back(block.scale * static_cast<float>(code) + block.minimum);
  }
  const float step = f16_to_float(float_to_f16(block.scale));
  if (type == WeightType::kInt8Blocks) {
    const float zero = block.minimum / block.scale;
    const bool kept = step == block.scale && zero == std::nearbyint(zero) && zero >= -128.0F &&
                      zero + static_cast<float>(std::ranges::max(block.codes)) < 128.0F;
    return kept ? exact : int8_twin(exact.data(), kWeightBlock);
  }
  const float minimum = f16_to_float(float_to_f16(block.minimum));
  for (const uint8_t code : block.codes) {
    out.push_back(step * static_cast<float>(code) + minimum);
  }
  return out;
}

// Rows beyond what is quantised at a time, features beyond a line and beyond a panel, magnitudes
// from subnormal steps to the largest.
TEST(WeightBlocks, EightBitsOfFloatsAreThoseOfThePlainTwin) {
  for (const auto& [n, k] : {std::pair{1, 32}, {17, 1024}, {66, 1025}, {3, 2111}, {130, 96}}) {
    auto w = random_floats(int64_t{n} * k, 12);
    for (size_t i = 0; i < w.size(); ++i) {
      w[i] = std::ldexp(w[i], static_cast<int>(i / 32 * 11 % 42) - 28);
    }
    std::fill_n(w.begin(), std::min(k, 40), 0.0F);
    const PackedMatrix packed = pack_floats(w, n, k, WeightType::kInt8Blocks);
    for (int64_t r = 0; r < n; ++r) {
      const std::vector<float> row = row_of(packed, r);
      for (int64_t begin = 0; begin < k; begin += kWeightBlock) {
        const int64_t count = std::min<int64_t>(kWeightBlock, k - begin);
        const std::vector<float> expected = int8_twin(&w[r * k + begin], count);
        for (int64_t i = 0; i < count; ++i) ASSERT_EQ(row[begin + i], expected[i]) << r;
      }
    }
  }
}

TEST(WeightBlocks, BlocksOfAFileAreConvertedAsByThePlainTwin) {
  constexpr int64_t kBlocks = 75;
  for (const WeightType type : {WeightType::kInt4Blocks, WeightType::kInt8Blocks}) {
    const int codes = type == WeightType::kInt4Blocks ? 16 : 32;
    std::vector<CodeBlock> blocks;
    const auto random = random_floats(2 * kBlocks, 4);
    for (int64_t b = 0; b < kBlocks; ++b) {
      const float scale = std::ldexp(random[2 * b], static_cast<int>(b % 30) - 20);
      const bool is_symmetric = b % 3 == 0;
      const float half = f16_to_float(float_to_f16(scale));
      blocks.push_back(is_symmetric ? block_of(half, -half * static_cast<float>(codes / 2), codes)
                                    : block_of(scale, 7.3F * scale * random[2 * b + 1], codes));
    }
    const PackedMatrix packed = pack_blocks(blocks, kBlocks * kWeightBlock, type);
    const std::vector<float> row = row_of(packed, 0);
    for (int64_t b = 0; b < kBlocks; ++b) {
      const std::vector<float> expected = convert_twin(blocks[b], type);
      for (int64_t i = 0; i < kWeightBlock; ++i) {
        ASSERT_EQ(row[b * kWeightBlock + i], expected[i]) << b << ", " << i;
      }
    }
  }
}

TEST(WeightBlocks, PaddingIsZero) {
  for (const WeightType type : {WeightType::kInt4Blocks, WeightType::kInt8Blocks}) {
    const PackedMatrix packed = pack_floats(std::vector<float>(3 * 70, 1.0F), 3, 70, type);
    ASSERT_EQ(packed.padded_k(), 128);
    for (int64_t b = 0; b < 4; ++b) {
      const std::byte* const block = packed.panel(0) + b * PackedMatrix::unit_bytes(type);
      for (int64_t c = b < 3 ? 3 : 0; c < 64; ++c) {
        float weights[kWeightBlock];
        unpack_block(block, type, c, weights);
        for (const float weight : weights) ASSERT_EQ(weight, 0.0F) << b << ", " << c;
      }
    }
  }
}

TEST(WeightBlocks, Int4IsWithinAStepOfEveryBlock) {
  for (const float offset : {0.0F, 3.0F, -3.0F, 40.0F, -40.0F}) {
    const int64_t n = 66, k = 131;
    auto w = random_floats(n * k, 2);
    for (float& x : w) x += offset;
    const PackedMatrix packed = pack_floats(w, n, k, WeightType::kInt4Blocks);
    for (int64_t r = 0; r < n; ++r) {
      const std::vector<float> row = row_of(packed, r);
      for (int64_t begin = 0; begin < k; begin += kWeightBlock) {
        const int64_t end = std::min(begin + kWeightBlock, k);
        float low = w[r * k + begin], high = low;
        for (int64_t i = begin; i < end; ++i) {
          low = std::min(low, w[r * k + i]);
          high = std::max(high, w[r * k + i]);
        }
        // Codes reach from the minimum upwards; far from zero a byte holds only so much.
        const float scale = std::max({(high - low) / 15.0F, -low / 16.0F, high / 15.875F});
        for (int64_t i = begin; i < end; ++i) {
          ASSERT_NEAR(row[i], w[r * k + i], 2.0F * scale) << offset << ": " << r << ", " << i;
        }
      }
    }
  }
}

TEST(WeightBlocks, ErrorsAreThoseOfTheirBits) {
  const int64_t n = 64, k = 2048;
  const auto w = random_floats(n * k, 3);
  // Uniform over ±1.73: steps of 3.46 / 15 and 1.73 / 127, errors of a step / sqrt(12).
  for (const auto& [type, expected] :
       {std::pair{WeightType::kInt4Blocks, 3.46 / 15}, {WeightType::kInt8Blocks, 1.73 / 127}}) {
    const PackedMatrix packed = pack_floats(w, n, k, type);
    double squares = 0.0;
    for (int64_t r = 0; r < n; ++r) {
      const std::vector<float> row = row_of(packed, r);
      for (int64_t i = 0; i < k; ++i) squares += std::pow(row[i] - w[r * k + i], 2.0);
    }
    EXPECT_LT(std::sqrt(squares / static_cast<double>(n * k)), expected / std::sqrt(12.0));
  }
}

TEST(WeightBlocks, ConstantBlocksAreNearlyExact) {
  for (const WeightType type : {WeightType::kInt4Blocks, WeightType::kInt8Blocks}) {
    for (const float value : {0.0F, 0.7F, -0.7F, 1e-3F, 3000.0F}) {
      const PackedMatrix packed = pack_floats(std::vector<float>(64, value), 1, 64, type);
      for (const float x : row_of(packed, 0)) {
        ASSERT_NEAR(x, value, std::fabs(value) * 0.01F) << value;
      }
    }
  }
}

TEST(WeightBlocks, SymmetricFourBitBlocksOfAFileAreKept) {
  for (const float scale : {0.25F, -0.25F, f16_to_float(0x1234)}) {
    const std::vector<CodeBlock> blocks(3, block_of(scale, -8.0F * scale, 16));
    const PackedMatrix packed = pack_blocks(blocks, 96, WeightType::kInt4Blocks);
    const std::vector<float> row = row_of(packed, 0);
    for (int i = 0; i < 96; ++i) {
      ASSERT_EQ(row[i], scale * static_cast<float>(blocks[0].codes[i % 32] - 8));
    }
  }
}

TEST(WeightBlocks, FourBitCodesOfAFileStayAndTheMinimumMovesByASixteenthOfTheScale) {
  for (const float minimum : {-0.31F, -0.01F, 0.02F, -1.9F}) {
    const float scale = 0.125F;
    const PackedMatrix packed =
        pack_blocks({block_of(scale, minimum, 16)}, 32, WeightType::kInt4Blocks);
    const std::vector<float> row = row_of(packed, 0);
    const float moved = row[0] - minimum;  // code 0
    EXPECT_LE(std::fabs(moved), scale / 16.0F * 1.001F);
    for (int i = 0; i < 32; ++i) {
      ASSERT_FLOAT_EQ(row[i], scale * static_cast<float>(i * 7 % 16) + minimum + moved);
    }
  }
}

TEST(WeightBlocks, AMinimumOutOfReachIsQuantisedAnew) {
  for (const float minimum : {5.0F, -9.0F}) {
    const PackedMatrix packed =
        pack_blocks({block_of(0.125F, minimum, 16)}, 32, WeightType::kInt4Blocks);
    const std::vector<float> row = row_of(packed, 0);
    for (int i = 0; i < 32; ++i) {
      ASSERT_NEAR(row[i], 0.125F * static_cast<float>(i * 7 % 16) + minimum, 0.4F);
    }
  }
}

TEST(WeightBlocks, SignedCodesOfAFileAreKeptInEightBits) {
  for (const auto& [minimum, codes] : {std::pair{-128, 256}, {-16, 32}, {-8, 16}, {-127, 255}}) {
    const float scale = f16_to_float(0x1b37);
    const float low = scale * static_cast<float>(minimum);
    const PackedMatrix packed =
        pack_blocks({block_of(scale, low, codes)}, 32, WeightType::kInt8Blocks);
    const std::vector<float> row = row_of(packed, 0);
    for (int i = 0; i < 32; ++i) {
      ASSERT_EQ(row[i], scale * static_cast<float>(i * 7 % codes + minimum));
    }
  }
}

TEST(WeightBlocks, OtherBlocksOfAFileAreQuantisedAnewInEightBits) {
  const PackedMatrix packed =
      pack_blocks({block_of(0.1F, -0.73F, 32)}, 32, WeightType::kInt8Blocks);
  const std::vector<float> row = row_of(packed, 0);
  const float largest = 0.1F * 31 - 0.73F;
  for (int i = 0; i < 32; ++i) {
    ASSERT_NEAR(row[i], 0.1F * static_cast<float>(i * 7 % 32) - 0.73F, largest / 127 * 0.51F);
  }
}

TEST(WeightBlocks, WhatIsNotFiniteStays) {
  for (const WeightType type : {WeightType::kInt4Blocks, WeightType::kInt8Blocks}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30F}) {
      auto w = random_floats(64, 5);
      w[40] = bad;
      const std::vector<float> row = row_of(pack_floats(w, 1, 64, type), 0);
      for (int i = 0; i < 64; ++i) EXPECT_EQ(std::isnan(row[i]), i >= 32);
    }
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const PackedMatrix packed = pack_blocks({block_of(bad, 0.0F, 16)}, 32, type);
      EXPECT_TRUE(std::isnan(row_of(packed, 0)[1]));
    }
  }
}

TEST(WeightBlocks, WeightsThatFourBitsHaveNoRoomForAreNoNumbersInsteadOfZero) {
  for (const float large : {7e4F, 1e6F, 6e6F}) {
    for (const float other : {large * 0.999F, -large}) {
      std::vector<float> weights(32, large);
      weights[5] = other;
      const auto packed = pack_floats(weights, 1, 32, WeightType::kInt4Blocks);
      for (const float value : row_of(packed, 0)) EXPECT_FALSE(std::abs(value) < 0.5F * large);
    }
  }
}

TEST(WeightBlocks, RowsFromAFunctionAreThoseOfAnArray) {
  const int64_t n = 130, k = 77;
  const auto w = random_floats(n * k, 9);
  const WeightRows rows{.floats = [&](int64_t row, int64_t begin, std::span<float> out) {
    std::copy_n(w.begin() + row * k + begin, out.size(), out.begin());
  }};
  for (const WeightType type : kWeightTypes) {
    const PackedMatrix expected = pack_floats(w, n, k, type);
    const PackedMatrix packed = PackedMatrix::pack_rows(rows, n, k, type, 3);
    EXPECT_TRUE(std::ranges::equal(packed.data(), expected.data()))
        << kernel_testing::type_name(type);
  }
}

TEST(Half, FloatsRoundToTheNearestF16) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const float exact = f16_to_float(static_cast<uint16_t>(bits));
    ASSERT_EQ(float_to_f16(exact), bits);
    ASSERT_EQ(float_to_f16(-exact), bits | 0x8000U);
    if (bits + 1 == 0x7c00) break;
    const float next = f16_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = exact + (next - exact) / 2;
    ASSERT_EQ(float_to_f16(middle), bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 0.0F)), bits);
    ASSERT_EQ(float_to_f16(std::nextafter(middle, next)), bits + 1);
  }
  EXPECT_EQ(float_to_f16(65519.0F), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0F), 0x7c00);
  EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(std::nanf("")))));
}

}  // namespace
}  // namespace kvcast

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/half.h"
#include "kernels/packed_matrix.h"
#include "kernels/weight_blocks.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

using testing::pack_floats;
using testing::random_floats;

std::vector<float> row_of(const PackedMatrix& matrix, int64_t row) {
  std::vector<float> out(static_cast<size_t>(matrix.k()));
  matrix.unpack_row(row, out);
  return out;
}

/// One matrix of one row, from blocks as a file holds them.
PackedMatrix pack_blocks(const std::vector<WeightBlock>& blocks, int64_t k, WeightType type) {
  const WeightRows rows{
      .floats = [](int64_t, float*) { FAIL() << "blocks were given"; },
      .blocks = [&](int64_t, WeightBlock* out) { std::copy(blocks.begin(), blocks.end(), out); }};
  return PackedMatrix::pack_rows(rows, 1, k, type, 1);
}

WeightBlock block_of(float scale, float minimum, int codes) {
  WeightBlock block{scale, minimum, {}};
  for (int i = 0; i < kWeightBlock; ++i) block.codes[i] = static_cast<uint8_t>(i * 7 % codes);
  return block;
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
    const std::vector<WeightBlock> blocks(3, block_of(scale, -8.0F * scale, 16));
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

TEST(WeightBlocks, RowsFromAFunctionAreThoseOfAnArray) {
  const int64_t n = 130, k = 77;
  const auto w = random_floats(n * k, 9);
  const WeightRows rows{
      .floats = [&](int64_t row, float* out) { std::copy_n(w.begin() + row * k, k, out); }};
  for (const WeightType type : kWeightTypes) {
    const PackedMatrix expected = pack_floats(w, n, k, type);
    const PackedMatrix packed = PackedMatrix::pack_rows(rows, n, k, type, 3);
    EXPECT_TRUE(std::ranges::equal(packed.data(), expected.data())) << testing::type_name(type);
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

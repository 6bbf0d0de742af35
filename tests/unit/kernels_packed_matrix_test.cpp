#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "kernels/packed_matrix.h"
#include "kernels_testing.h"

namespace kvcast {
namespace {

using kernel_testing::pack_floats;
using kernel_testing::random_floats;

const std::byte* as_bytes(const auto& values) {
  return reinterpret_cast<const std::byte*>(values.data());
}

TEST(PackedMatrix, F32RowsComeBackUnchangedOnOddShapes) {
  for (const auto& [n, k] : {std::pair{1, 1}, {3, 5}, {63, 17}, {64, 64}, {65, 33}, {130, 100}}) {
    const auto w = random_floats(int64_t{n} * k, 1);
    const PackedMatrix packed = pack_floats(w, n, k, WeightType::kF32);
    EXPECT_EQ(packed.n(), n);
    EXPECT_EQ(packed.k(), k);
    std::vector<float> row(static_cast<size_t>(k));
    for (int r = 0; r < n; ++r) {
      packed.unpack_row(r, row);
      ASSERT_EQ(std::memcmp(row.data(), &w[static_cast<size_t>(r) * k], sizeof(float) * k), 0);
    }
  }
}

TEST(PackedMatrix, EverySourceTypeGivesItsExactValues) {
  constexpr int kN = 67, kK = 37;
  std::vector<uint16_t> bf16(kN * kK), f16(kN * kK);
  for (size_t i = 0; i < bf16.size(); ++i) {
    bf16[i] = float_to_bf16(static_cast<float>(i) * 0.37F - 100.0F);
    f16[i] = static_cast<uint16_t>(0x3000U + i);
  }
  std::vector<float> row(kK);
  const auto from_bf16 =
      PackedMatrix::pack(as_bytes(bf16), SourceType::kBf16, kN, kK, WeightType::kBf16, 1);
  const auto from_f16 =
      PackedMatrix::pack(as_bytes(f16), SourceType::kF16, kN, kK, WeightType::kF32, 3);
  for (int r = 0; r < kN; ++r) {
    from_bf16.unpack_row(r, row);
    for (int i = 0; i < kK; ++i) ASSERT_EQ(row[i], bf16_to_float(bf16[r * kK + i]));
    from_f16.unpack_row(r, row);
    for (int i = 0; i < kK; ++i) ASSERT_EQ(row[i], f16_to_float(f16[r * kK + i]));
  }
}

TEST(PackedMatrix, UnalignedSourceIsAccepted) {
  const auto w = random_floats(70 * 9, 5);
  std::vector<std::byte> shifted(w.size() * sizeof(float) + 1);
  std::memcpy(shifted.data() + 1, w.data(), w.size() * sizeof(float));
  const auto packed =
      PackedMatrix::pack(shifted.data() + 1, SourceType::kF32, 70, 9, WeightType::kF32, 2);
  std::vector<float> row(9);
  packed.unpack_row(69, row);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(row[i], w[69 * 9 + i]);
}

TEST(PackedMatrix, Int8IsWithinHalfAStepOfEveryChannel) {
  constexpr int kN = 66, kK = 131;
  auto w = random_floats(int64_t{kN} * kK, 2);
  for (int i = 0; i < kK; ++i) w[7 * kK + i] = 0.0F;  // a channel of zeros has scale zero
  const PackedMatrix packed = pack_floats(w, kN, kK, WeightType::kInt8);
  std::vector<float> row(kK);
  for (int r = 0; r < kN; ++r) {
    float largest = 0.0F;
    for (int i = 0; i < kK; ++i) largest = std::max(largest, std::fabs(w[r * kK + i]));
    packed.unpack_row(r, row);
    for (int i = 0; i < kK; ++i) {
      ASSERT_NEAR(row[i], w[r * kK + i], largest / 127.0F * 0.5001F) << r << ", " << i;
    }
  }
}

TEST(PackedMatrix, PaddingIsZero) {
  const PackedMatrix packed = pack_floats(random_floats(3 * 5, 3), 3, 5, WeightType::kInt8);
  EXPECT_EQ(packed.padded_k(), 64);
  ASSERT_EQ(packed.data().size(), packed.bytes());
  for (int64_t g = 0; g < packed.groups(); ++g) {
    for (int64_t c = 0; c < 64; ++c) {
      for (int64_t e = 0; e < 4; ++e) {
        if (c < 3 && g * 4 + e < 5) continue;
        ASSERT_EQ(packed.panel(0)[(g * 64 + c) * 4 + e], std::byte{0});
      }
    }
  }
  EXPECT_EQ(packed.scales(0)[3], 0.0F);
  EXPECT_EQ(packed.column_sums(0)[3], 0);
}

TEST(PackedMatrix, AdoptedBytesAreTheSameMatrix) {
  const auto w = random_floats(100 * 50, 4);
  for (const WeightType type : kWeightTypes) {
    const PackedMatrix packed = pack_floats(w, 100, 50, type);
    ASSERT_EQ(PackedMatrix::packed_bytes(100, 50, type), packed.bytes());
    const std::shared_ptr<const std::byte> borrowed(packed.data().data(), [](const std::byte*) {});
    const PackedMatrix adopted = PackedMatrix::adopt(borrowed, 100, 50, type);
    std::vector<float> a(50), b(50);
    for (int r = 0; r < 100; ++r) {
      packed.unpack_row(r, a);
      adopted.unpack_row(r, b);
      ASSERT_EQ(a, b);
    }
  }
}

TEST(PackedMatrix, PackedBytesRefusesWhatCannotBe) {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  EXPECT_FALSE(PackedMatrix::packed_bytes(0, 5, WeightType::kF32));
  EXPECT_FALSE(PackedMatrix::packed_bytes(5, -1, WeightType::kF32));
  EXPECT_FALSE(PackedMatrix::packed_bytes(kHuge, 1, WeightType::kInt8));
  EXPECT_FALSE(PackedMatrix::packed_bytes(int64_t{1} << 39, int64_t{1} << 39, WeightType::kBf16));
}

TEST(PackedMatrix, ThreadsDoNotChangeTheBytes) {
  const auto w = random_floats(300 * 70, 6);
  const PackedMatrix one = pack_floats(w, 300, 70, WeightType::kInt8, 1);
  const PackedMatrix five = pack_floats(w, 300, 70, WeightType::kInt8, 5);
  ASSERT_EQ(one.bytes(), five.bytes());
  EXPECT_EQ(std::memcmp(one.data().data(), five.data().data(), one.bytes()), 0);
}

}  // namespace
}  // namespace kvcast

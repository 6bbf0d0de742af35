#include "model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/config.h"

namespace kvcast {
namespace {

TEST(RopeTable, HoldsTheAnglesOfEveryPosition) {
  constexpr int64_t kHeadDim = 64, kHalf = kHeadDim / 2;
  constexpr float kTheta = 10000.0F;
  const RopeTable table(Rope{.theta = kTheta, .factors = {}}.frequencies(kHeadDim), 5000);
  const std::vector<int64_t> positions = {0, 1, 7, 1023, 1024, 1025, 2047, 4096, 4999};
  std::vector<float> cosines(positions.size() * kHalf), sines(cosines.size());
  table.fill(positions, cosines.data(), sines.data());
  for (size_t row = 0; row < positions.size(); ++row) {
    for (int64_t j = 0; j < kHalf; ++j) {
      const double frequency = std::pow(double{kTheta}, -2.0 * static_cast<double>(j) / kHeadDim);
      const double angle = static_cast<double>(positions[row]) * frequency;
      const size_t at = row * kHalf + static_cast<size_t>(j);
      EXPECT_NEAR(cosines[at], std::cos(angle), 1e-7) << positions[row] << ", " << j;
      EXPECT_NEAR(sines[at], std::sin(angle), 1e-7) << positions[row] << ", " << j;
    }
  }
}

TEST(RopeTable, ALargeContextCostsLittleMemory) {
  // As a table of all positions this would be 2 GiB.
  const RopeTable table(Rope{}.frequencies(512), int64_t{1} << 20);
  const std::vector<int64_t> last = {(int64_t{1} << 20) - 1};
  std::vector<float> cosines(256), sines(256);
  table.fill(last, cosines.data(), sines.data());
  EXPECT_NEAR(cosines[0], std::cos(1048575.0), 1e-6);
  EXPECT_LT(table.bytes(), size_t{10} << 20);
}

}  // namespace
}  // namespace kvcast

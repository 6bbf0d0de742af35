// Products of zeros, of what is tiny and of what is no number.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "matmul_testing.h"

namespace kvcast {
namespace {

using Case = kernel_testing::MatmulCase;
using Data = kernel_testing::MatmulData;
using kernel_testing::pack_floats;
using kernel_testing::random_floats;
using kernel_testing::type_name;

class MatmulValues : public kernel_testing::EveryIsa {};
KVCAST_FOR_EVERY_ISA(MatmulValues);

TEST_P(MatmulValues, RowOfZerosGivesTheBias) {
  for (const WeightType type : kWeightTypes) {
    Data d({type, 2, 70, 33, true});
    std::fill(d.a.begin(), d.a.end(), 0.0F);
    matmul(d.args, 1);
    for (int64_t c = 0; c < 70; ++c) ASSERT_EQ(d.out[70 + c], d.bias[c]);
  }
}

TEST_P(MatmulValues, ARowThatIsNotFiniteGivesNaNAndLeavesItsNeighboursAlone) {
  for (const WeightType type : kWeightTypes) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const Case c{type, 3, 70, 33};
      Data clean(c);
      Data d(c);
      d.a[33 + 7] = bad;
      matmul(clean.args, 1);
      matmul(d.args, 1);
      for (int64_t i = 0; i < 70; ++i) {
        EXPECT_FALSE(std::isfinite(d.out[70 + i])) << type_name(type);
        ASSERT_EQ(d.out[i], clean.out[i]);
        ASSERT_EQ(d.out[140 + i], clean.out[140 + i]);
      }
    }
  }
}

TEST_P(MatmulValues, AnOutputFeatureThatIsNotFiniteGivesNaNAndLeavesItsNeighboursAlone) {
  for (const WeightType type : kWeightTypes) {
    const int64_t n = 70, k = 33;
    auto w = random_floats(n * k, 14);
    const Data clean({type, 2, n, k});
    Data d({type, 2, n, k});
    w[5 * k + 3] = std::numeric_limits<float>::quiet_NaN();
    d.weight = pack_floats(w, n, k, type);
    auto expected = clean.out;
    MatmulArgs plain = clean.args;
    plain.out = expected.data();
    plain.weight = &clean.weight;
    d.args.weight = &d.weight;
    matmul(plain, 1);
    matmul(d.args, 1);
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t i = 0; i < n; ++i) {
        if (i == 5) {
          EXPECT_TRUE(std::isnan(d.out[r * n + i])) << type_name(type);
        } else {
          ASSERT_EQ(d.out[r * n + i], expected[r * n + i]);
        }
      }
    }
  }
}

TEST_P(MatmulValues, TinyActivationsDoNotOverflowTheirScale) {
  Data d({WeightType::kInt8, 1, 70, 33});
  for (float& a : d.a) a *= 1e-39F;  // 127 divided by the largest would be infinite
  matmul(d.args, 1);
  for (int64_t i = 0; i < 70; ++i) EXPECT_LT(std::fabs(d.out[i]), 1e-36F);
}

}  // namespace
}  // namespace kvcast

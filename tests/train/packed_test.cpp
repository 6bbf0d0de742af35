// The trainer reads what `kvcast convert` writes.
#include <gtest/gtest.h>

#include "runtime/convert.h"
#include "train/model_files.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

const std::filesystem::path kPackedBundle =
    std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

/// Largest difference of any value over the largest value of its tensor.
double largest_relative_difference(const TensorMap& actual, const TensorMap& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double largest = 0;
  for (const auto& [name, value] : expected) {
    const auto found = actual.find(name);
    if (found == actual.end() || found->second.sizes() != value.sizes()) {
      ADD_FAILURE() << name;
      continue;
    }
    const double difference = (found->second - value).abs().max().item<double>();
    largest = std::max(largest, difference / value.abs().max().item<double>());
  }
  return largest;
}

class PackedBundle : public testing::TestWithParam<std::pair<WeightType, double>> {};

TEST_P(PackedBundle, HoldsThePlainOnesValuesAsRounded) {
  const auto [type, rounding] = GetParam();
  const TemporaryDirectory root;
  const auto packed = root.path() / "packed";
  ASSERT_TRUE(kvcast::convert({.source = kPackedBundle, .output = packed, .type = type}));
  const LoadedBundle expected = load_bundle(kPackedBundle), actual = load_bundle(packed);
  EXPECT_LE(largest_relative_difference(actual.base.values, expected.base.values), rounding);
  EXPECT_LE(largest_relative_difference(actual.auxiliary.values, expected.auxiliary.values),
            rounding);
  EXPECT_LE(largest_relative_difference(actual.predictor, expected.predictor), rounding);
}

INSTANTIATE_TEST_SUITE_P(Types, PackedBundle,
                         testing::Values(std::pair{WeightType::kF32, 0.0},
                                         std::pair{WeightType::kBf16, 1.0 / 256},
                                         std::pair{WeightType::kInt8, 1.0 / 127}));

}  // namespace
}  // namespace kvcast::train

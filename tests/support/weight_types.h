// Tests over every type that weights can be held in.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/packed_matrix.h"
#include "runtime/model_impl.h"

namespace kvcast {

/// As --dtype calls it, in a test's name: "f32", "int8_blocks".
inline std::string weight_type_name(WeightType type) {
  std::string name(dtype_text(dtype_of(type)));
  std::ranges::replace(name, '-', '_');
  return name;
}

}  // namespace kvcast

/// The tests of `suite`, a TestWithParam<WeightType>, once for each type.
#define KVCAST_FOR_EVERY_WEIGHT_TYPE(suite)                                \
  INSTANTIATE_TEST_SUITE_P(Dtypes, suite, testing::ValuesIn(kWeightTypes), \
                           [](const auto& tested) { return weight_type_name(tested.param); })

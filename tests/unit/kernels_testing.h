// What the kernel tests share: random data, and one test instance per instruction set.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace kvcast::kernel_testing {

inline std::vector<float> random_floats(int64_t count, uint32_t seed, float scale = 1.0F) {
  std::minstd_rand generator(seed * 7919U + 1U);
  std::vector<float> values(static_cast<size_t>(count));
  // Uniform with the variance of a unit normal: cheap, and these tests need many.
  const float step = scale * 2.0F * 1.7320508F / static_cast<float>(std::minstd_rand::max());
  for (float& v : values) v = static_cast<float>(generator()) * step - scale * 1.7320508F;
  return values;
}

inline PackedMatrix pack_floats(const std::vector<float>& w, int64_t n, int64_t k, WeightType type,
                                int threads = 2) {
  return PackedMatrix::pack(reinterpret_cast<const std::byte*>(w.data()), SourceType::kF32, n, k,
                            type, threads);
}

inline std::string type_name(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return "f32";
    case WeightType::kBf16:
      return "bf16";
    case WeightType::kInt8:
      return "int8";
    case WeightType::kInt4Blocks:
      return "int4 blocks";
    case WeightType::kInt8Blocks:
      return "int8 blocks";
  }
  return "unknown";
}

/// Runs with every instruction set that this machine has.
class EveryIsa : public ::testing::TestWithParam<Isa> {
 protected:
  EveryIsa() : scoped_(GetParam()) {}

 private:
  ScopedIsa scoped_;
};

inline std::string isa_test_name(const ::testing::TestParamInfo<Isa>& info) {
  return std::string(isa_name(info.param));
}

#define KVCAST_FOR_EVERY_ISA(suite)                                               \
  INSTANTIATE_TEST_SUITE_P(Kernels, suite, ::testing::ValuesIn(supported_isas()), \
                           ::kvcast::kernel_testing::isa_test_name)

}  // namespace kvcast::kernel_testing

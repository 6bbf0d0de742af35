// Reading expected tensors and comparing with them.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/kv_cache_rows.h"

namespace kvcast {

inline std::vector<float> float_values(const TensorSource& file, const std::string& name) {
  const auto tensor = file.find(name);
  EXPECT_TRUE(tensor) << name;
  std::vector<float> values(static_cast<size_t>(tensor->element_count()));
  to_float(*tensor, values);
  return values;
}

inline std::vector<int64_t> int_values(const TensorSource& file, const std::string& name) {
  const auto tensor = file.find(name);
  EXPECT_TRUE(tensor) << name;
  EXPECT_EQ(tensor->dtype, DType::kI64) << name;
  std::vector<int64_t> values(static_cast<size_t>(tensor->element_count()));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

/// Largest absolute difference; infinite if the sizes differ or a value is not finite.
inline double largest_difference(const std::vector<float>& actual,
                                 const std::vector<float>& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  if (actual.size() != expected.size() || actual.empty()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!std::isfinite(difference)) return INFINITY;
    largest = std::max(largest, difference);
  }
  return largest;
}

/// Largest absolute difference over the largest expected magnitude.
inline double relative_to_largest(const std::vector<float>& actual,
                                  const std::vector<float>& expected) {
  double magnitude = 0;
  for (const float value : expected) magnitude = std::max(magnitude, std::abs(double{value}));
  return largest_difference(actual, expected) / magnitude;
}

/// [rows, heads * head_dim] -> [heads, rows, head_dim]
inline std::vector<float> heads_first(const float* data, int64_t heads, int64_t rows,
                                      int64_t head_dim) {
  std::vector<float> out;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t r = 0; r < rows; ++r) {
      const float* from = data + (r * heads + h) * head_dim;
      out.insert(out.end(), from, from + head_dim);
    }
  }
  return out;
}

}  // namespace kvcast

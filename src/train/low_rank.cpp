#include "train/low_rank.h"

#include <cmath>

namespace kvcast::train {
namespace {

/// Of what a row of `down` makes of an input of unit variance: the size of a step of `up` in the
/// layer's output goes with it.
constexpr double kDownScale = 2.0;

}  // namespace

std::vector<ParameterSpec> low_rank_specs(const std::vector<ParameterSpec>& layers, int64_t rank) {
  std::vector<ParameterSpec> specs;
  for (const ParameterSpec& spec : layers) {
    if (!spec.is_matrix()) {
      specs.push_back(spec);
      continue;
    }
    const int64_t columns = spec.shape[1];
    specs.push_back({spec.name + kUpSuffix, {spec.shape[0], rank}, Init::kZeros});
    specs.push_back({spec.name + kDownSuffix,
                     {rank, columns},
                     Init::kNormal,
                     kDownScale / std::sqrt(static_cast<double>(columns))});
  }
  return specs;
}

TensorMap low_rank_start(const std::vector<ParameterSpec>& layers, const TensorMap& given,
                         int64_t rank, uint64_t seed) {
  TensorMap values = initial_values(low_rank_specs(layers, rank), seed);
  for (const ParameterSpec& spec : layers) {
    if (!spec.is_matrix()) values[spec.name] = given.at(spec.name);
  }
  return values;
}

TensorMap merged_layers(const std::vector<ParameterSpec>& layers, const TensorMap& given,
                        const TensorMap& values) {
  TensorMap merged;
  for (const ParameterSpec& spec : layers) {
    if (!spec.is_matrix()) {
      merged.emplace(spec.name, values.at(spec.name));
      continue;
    }
    const Tensor& matrix = given.at(spec.name);
    const auto factor = [&](const char* suffix) {
      return values.at(spec.name + suffix).to(matrix.device(), matrix.scalar_type());
    };
    merged.emplace(spec.name, at::addmm(matrix, factor(kUpSuffix), factor(kDownSuffix)));
  }
  return merged;
}

}  // namespace kvcast::train

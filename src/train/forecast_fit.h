// The closed form that `adapt` starts from (method §10).
#pragma once

#include "train/data/window_sampler.h"
#include "train/forecast.h"
#include "train/tensor_io.h"

namespace kvcast::train {

struct ForecastFit {
  std::vector<int64_t> sources;  ///< for each base layer after the exact ones, the best one
  TensorMap maps;                ///< by the names of forecast_map_specs, f32 on the CPU
  double held_out_error = 0.0;   ///< mean share of the variance that is not explained
};

/// Maps from the sources that `reader` makes of the sampler's text, sinks left out.
ForecastFit fit_forecast(const Model& base, const Model& reader, const ForecastShape& shape,
                         const RidgeFitRecipe& recipe, const WindowSampler& sampler,
                         const at::Device& device);

/// Elements of one token's input of a map.
int64_t map_width(const ModelConfig& reader, const ForecastShape& shape);

/// "key_transforms.{n}.weight" and so on of the n-th base layer after the exact ones, from sources
/// of this width.
std::vector<ParameterSpec> forecast_map_specs(const ModelConfig& base, const ForecastShape& shape,
                                              int64_t source_width);

}  // namespace kvcast::train

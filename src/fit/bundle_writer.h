#pragma once

#include <vector>

#include "fit/choice.h"

namespace kvcast {

/// Writes options.output: kvcast.json and the predictor, weights in bf16; the models stay where
/// they are. The directory appears whole or not at all.
Status write_fitted_bundle(const FitOptions& options, const FitResult& result,
                           const std::vector<LayerMaps>& maps);

}  // namespace kvcast

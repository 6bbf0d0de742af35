// Which input and which ridge each forecast layer gets.
#pragma once

#include <vector>

#include "fit/fit.h"
#include "fit/statistics.h"

namespace kvcast {

/// The maps of one forecast layer.
struct LayerMaps {
  FittedLayer chosen;
  LinearMaps keys, values;
};

/// For each forecast layer the input, and for its keys and its values the ridge, with the least
/// error on the held-out sums. Inputs from auxiliary layers at or beyond `auxiliary_layers` are
/// left out. At least one input must be left.
std::vector<LayerMaps> choose_maps(const FitShape& shape, const Statistics& statistics,
                                   const ModelConfig& base, int64_t auxiliary_layers, int threads);

}  // namespace kvcast

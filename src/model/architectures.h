// Named pairs of base and auxiliary, and the arithmetic of OpenELM's layer-wise scaling (method §2)
// that config.cpp and architectures.cpp share.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "model/config.h"

namespace kvcast {

struct ModelPair {
  ModelConfig base, auxiliary;
  std::vector<int64_t> layer_map;  // [base layers] -> auxiliary layer
};

/// Two named architectures (see named_architecture) with the layer map of method §5: the
/// layer-pruned one if the auxiliary is a layer-pruned form of the base, else the canonical one.
Result<ModelPair> named_pair(std::string_view base, std::string_view auxiliary);

/// `value` rounded to a multiple of `divisor`, at least `divisor`, never below 0.9 * value.
/// `value` must be finite and below 2^52.
int64_t make_divisible(double value, int64_t divisor);

/// round(linspace(first, last, count), 2) as numpy computes it.
std::vector<double> scaling_multipliers(double first, double last, int64_t count);

}  // namespace kvcast

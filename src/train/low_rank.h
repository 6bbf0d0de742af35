// Layers that differ from given ones by products of two thin matrices (Hu et al. 2021, arXiv
// 2106.09685): few numbers to store, the same operations to run.
#pragma once

#include <cstdint>
#include <vector>

#include "model/adapted_layers.h"
#include "train/parameters.h"

namespace kvcast::train {

/// `layers` with each matrix NAME [n, k] replaced by NAME.up [n, rank], which starts as zeros, and
/// NAME.down [rank, k]; vectors stay as they are.
std::vector<ParameterSpec> low_rank_specs(const std::vector<ParameterSpec>& layers, int64_t rank);

/// Values to start from: `given`'s vectors, factors whose product is zero.
TensorMap low_rank_start(const std::vector<ParameterSpec>& layers, const TensorMap& given,
                         int64_t rank, uint64_t seed);

/// The layers that `values` (named as low_rank_specs names them) make of the matrices of `given`:
/// given + up down, in the given matrix's dtype; differentiable in `values`.
TensorMap merged_layers(const std::vector<ParameterSpec>& layers, const TensorMap& given,
                        const TensorMap& values);

}  // namespace kvcast::train

// Layers that differ from another model's by products of two thin matrices (Hu et al. 2021, arXiv
// 2106.09685): small in a file, layers like any others in memory.
#pragma once

#include <optional>
#include <span>

#include "model/weights.h"

namespace kvcast {

/// What follows a matrix's name where a file has the two factors of a change to it.
inline constexpr const char* kUpSuffix = ".up";
inline constexpr const char* kDownSuffix = ".down";

/// load_weights of a checkpoint whose own layers may be adapted: adapted[i] is the layer of
/// shared.from that layer i differs from, or kOwnLayer. Of an adapted layer the file has the
/// vectors, and for each matrix NAME [n, k], as packed files name it, the factors NAME.up [n, r]
/// and NAME.down [r, k] in F32, F16 or BF16: the layer's matrix is the given one + up down. Without
/// a type it is held as the given one, in 8 bits at least: steps of 4 bits are wider than most
/// changes.
Result<ModelWeights> load_adapted_weights(const Checkpoint& checkpoint, const SharedWeights& shared,
                                          std::span<const int64_t> adapted,
                                          std::optional<WeightType> type, int threads);

}  // namespace kvcast

// kvcast convert: writes a model directory or bundle whose weights are packed (docs/FORMAT.md), so
// that loading it is mapping it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>

#include "kernels/packed_matrix.h"
#include "kvcast/result.h"

namespace kvcast {

struct ConvertOptions {
  std::filesystem::path source;         ///< model directory or bundle, plain or packed
  std::filesystem::path output;         ///< must not exist
  std::optional<WeightType> type = {};  ///< null: each matrix as it is stored
  int64_t shard_bytes = 0;  ///< largest weights file of a model; 0: one file whatever its size
  int threads = 1;
  std::stop_token stop = {};
};

/// Copies configs, tokenizers and, for a bundle, kvcast.json with all its keys; a bundle's two
/// models and predictor come to lie inside `output`. On error, or when `stop` fires, nothing is
/// left at `output`. Throws std::bad_alloc where memory runs out.
Status convert(const ConvertOptions& options);

}  // namespace kvcast

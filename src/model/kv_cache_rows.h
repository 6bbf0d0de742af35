// A cache's contents in the form that files and comparisons use.
#pragma once

#include <vector>

#include "model/kv_cache.h"
#include "model/transformer.h"

namespace kvcast {

/// [kv_heads, rows, head_dim]; k_norm applied, RoPE undone.
std::vector<float> keys_without_rope(const KVCache& cache, int64_t layer, const Transformer& model);

/// [kv_heads, rows, head_dim]
std::vector<float> cached_values(const KVCache& cache, int64_t layer);

}  // namespace kvcast

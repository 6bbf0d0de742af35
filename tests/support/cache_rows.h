#pragma once

#include <string>

#include "kernels/kernels.h"
#include "model/kv_cache.h"

namespace kvcast {

/// Appends `count` rows to a layer of a cache with room for them, as they are. `keys`, `values`:
/// [count, kv_heads * head_dim], row stride `stride`.
inline void append_rows(KVCache& cache, int64_t layer, const float* keys, const float* values,
                        int64_t count, int64_t stride) {
  HeadNormRopeArgs key{.x = keys,
                       .x_stride = stride,
                       .rows = count,
                       .heads = cache.kv_heads(layer),
                       .head_dim = cache.head_dim()};
  HeadNormRopeArgs value = key;
  value.x = values;
  cache.place_keys(layer, 0, key);
  cache.place_values(layer, 0, value);
  head_norm_rope(key, 1);
  head_norm_rope(value, 1);
  cache.commit(layer, count);
}

/// The bytes of the first `rows` rows of every head of a layer, keys and values.
inline std::string bytes_of(const KVCache& cache, int64_t layer, int64_t rows) {
  const auto element = kv_element_bytes(cache.type());
  std::string bytes;
  for (const std::byte* data : {cache.keys(layer), cache.values(layer)}) {
    for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
      bytes.append(reinterpret_cast<const char*>(data) + head * cache.head_stride() * element,
                   static_cast<size_t>(rows * kv_row_bytes(cache.type(), cache.head_dim())));
    }
  }
  return bytes;
}

}  // namespace kvcast

#include "model/kv_cache_rows.h"

namespace kvcast {
namespace {

std::vector<float> compact(const float* data, const KVCache& cache, int64_t layer) {
  const int64_t floats = cache.rows(layer) * cache.head_dim();
  std::vector<float> out;
  out.reserve(static_cast<size_t>(cache.kv_heads(layer) * floats));
  for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
    const float* from = data + head * cache.head_stride();
    out.insert(out.end(), from, from + floats);
  }
  return out;
}

}  // namespace

std::vector<float> keys_without_rope(const KVCache& cache, int64_t layer,
                                     const Transformer& model) {
  std::vector<float> keys = compact(cache.keys(layer), cache, layer);
  const int64_t half = cache.head_dim() / 2, rows = cache.rows(layer);
  for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
    for (int64_t position = 0; position < rows; ++position) {
      float* first = keys.data() + (head * rows + position) * cache.head_dim();
      float* second = first + half;
      for (int64_t j = 0; j < half; ++j) {  // the rotation's transpose
        const float cosine = model.rope_cos()[position * half + j];
        const float sine = model.rope_sin()[position * half + j];
        const float a = first[j], b = second[j];
        first[j] = a * cosine + b * sine;
        second[j] = b * cosine - a * sine;
      }
    }
  }
  return keys;
}

std::vector<float> cached_values(const KVCache& cache, int64_t layer) {
  return compact(cache.values(layer), cache, layer);
}

}  // namespace kvcast

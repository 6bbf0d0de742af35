#include "model/kv_cache_rows.h"

#include "base/half.h"

namespace kvcast {
namespace {

std::vector<float> compact(const std::byte* data, const KVCache& cache, int64_t layer) {
  const int64_t elements = cache.rows(layer) * cache.head_dim();
  std::vector<float> out;
  out.reserve(static_cast<size_t>(cache.kv_heads(layer) * elements));
  for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
    for (int64_t i = 0; i < elements; ++i) {
      const int64_t at = head * cache.head_stride() + i;
      out.push_back(cache.type() == KvType::kF32
                        ? reinterpret_cast<const float*>(data)[at]
                        : bf16_to_float(reinterpret_cast<const uint16_t*>(data)[at]));
    }
  }
  return out;
}

}  // namespace

std::vector<float> keys_without_rope(const KVCache& cache, int64_t layer,
                                     const Transformer& model) {
  std::vector<float> keys = compact(cache.keys(layer), cache, layer);
  const int64_t half = cache.head_dim() / 2, rows = cache.rows(layer);
  std::vector<float> cosines(static_cast<size_t>(rows * half)), sines(cosines.size());
  model.rope().fill(cache.positions(layer), cosines.data(), sines.data());
  for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
    for (int64_t row = 0; row < rows; ++row) {
      float* first = keys.data() + (head * rows + row) * cache.head_dim();
      float* second = first + half;
      for (int64_t j = 0; j < half; ++j) {  // the rotation's transpose
        const float cosine = cosines[row * half + j];
        const float sine = sines[row * half + j];
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

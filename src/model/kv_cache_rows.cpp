#include "model/kv_cache_rows.h"

#include <cstring>

#include "base/half.h"
#include "kernels/rotation_inl.h"

namespace kvcast {
namespace {

/// A row of a head as f32, added to `out`.
void append_row(const std::byte* row, const KVCache& cache, std::vector<float>& out) {
  const int64_t elements = cache.head_dim();
  if (cache.type() == KvType::kF32) {
    const auto* const floats = reinterpret_cast<const float*>(row);
    out.insert(out.end(), floats, floats + elements);
  } else if (cache.type() == KvType::kBf16) {
    const auto* const halves = reinterpret_cast<const uint16_t*>(row);
    for (int64_t i = 0; i < elements; ++i) out.push_back(bf16_to_float(halves[i]));
  } else {
    float step = 0.0F;
    std::memcpy(&step, row, sizeof step);
    const auto* const codes = reinterpret_cast<const int8_t*>(row + kKvStepBytes);
    for (int64_t i = 0; i < elements; ++i) out.push_back(step * static_cast<float>(codes[i]));
  }
}

std::vector<float> compact(const std::byte* data, const KVCache& cache, int64_t layer) {
  const int64_t row_bytes = kv_row_bytes(cache.type(), cache.head_dim());
  const int64_t head_bytes = cache.head_stride() * kv_element_bytes(cache.type());
  std::vector<float> out;
  out.reserve(static_cast<size_t>(cache.kv_heads(layer) * cache.rows(layer) * cache.head_dim()));
  for (int64_t head = 0; head < cache.kv_heads(layer); ++head) {
    for (int64_t row = 0; row < cache.rows(layer); ++row) {
      append_row(data + head * head_bytes + row * row_bytes, cache, out);
    }
  }
  return out;
}

}  // namespace

std::vector<float> keys_without_rope(const KVCache& cache, int64_t layer,
                                     const Transformer& model) {
  std::vector<float> keys = compact(cache.keys(layer), cache, layer);
  if (cache.type() == KvType::kInt8) {
    for (size_t i = 0; i < keys.size(); i += static_cast<size_t>(cache.head_dim())) {
      rotate_head(keys.data() + i, cache.head_dim());
    }
  }
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

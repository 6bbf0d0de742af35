#include "model/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace kvcast {
namespace {

/// Copies `rows` rows of every head between two buffers of different capacity.
void copy_heads(const float* from, int64_t from_stride, float* to, int64_t to_stride, int64_t heads,
                int64_t floats_per_head) {
  for (int64_t head = 0; head < heads; ++head) {
    std::memcpy(to + head * to_stride, from + head * from_stride,
                static_cast<size_t>(floats_per_head) * sizeof(float));
  }
}

}  // namespace

KVCache::KVCache(const ModelConfig& config) : head_dim_(config.head_dim) {
  layers_.resize(config.layers.size());
  for (size_t i = 0; i < layers_.size(); ++i) layers_[i].kv_heads = config.layers[i].kv_heads;
}

int64_t KVCache::rows_in_first(int64_t layers) const {
  int64_t rows = layers > 0 ? layers_[0].rows : 0;
  for (int64_t i = 1; i < layers; ++i) rows = std::min(rows, layers_[i].rows);
  return rows;
}

void KVCache::reserve(int64_t rows) {
  if (rows <= capacity_) return;
  constexpr int64_t kGranule = 64;  // rows; keeps one-token growth from copying every time
  int64_t capacity = std::max(rows, capacity_ + capacity_ / 2);
  capacity = (capacity + kGranule - 1) / kGranule * kGranule;
  const int64_t old_stride = head_stride();
  const int64_t new_stride = capacity * head_dim_;
  // All memory is asked for before anything is moved, so that running out changes nothing. Fresh
  // pages are touched only as rows are copied, and the old ones go as they are.
  std::vector<AlignedBuffer<float>> grown;
  grown.reserve(2 * layers_.size());
  for (const Layer& layer : layers_) {
    for (int i = 0; i < 2; ++i)
      grown.emplace_back(static_cast<size_t>(layer.kv_heads * new_stride));
  }
  auto next = grown.begin();
  for (Layer& layer : layers_) {
    for (AlignedBuffer<float>* buffer : {&layer.keys, &layer.values}) {
      if (layer.rows > 0) {
        copy_heads(buffer->data(), old_stride, next->data(), new_stride, layer.kv_heads,
                   layer.rows * head_dim_);
      }
      *buffer = std::move(*next++);
    }
  }
  capacity_ = capacity;
}

void KVCache::append(int64_t layer_index, const float* keys, const float* values, int64_t count,
                     int64_t stride) {
  Layer& layer = layers_[layer_index];
  assert(layer.rows + count <= capacity_);
  const auto row_bytes = static_cast<size_t>(head_dim_) * sizeof(float);
  for (int64_t head = 0; head < layer.kv_heads; ++head) {
    float* key_out = layer.keys.data() + head * head_stride() + layer.rows * head_dim_;
    float* value_out = layer.values.data() + head * head_stride() + layer.rows * head_dim_;
    for (int64_t row = 0; row < count; ++row) {
      const int64_t from = row * stride + head * head_dim_;
      std::memcpy(key_out + row * head_dim_, keys + from, row_bytes);
      std::memcpy(value_out + row * head_dim_, values + from, row_bytes);
    }
  }
  layer.rows += count;
}

void KVCache::truncate(int64_t position) {
  next_position_ = std::min(next_position_, position);
  for (Layer& layer : layers_) layer.rows = std::min(layer.rows, position);
}

KVCache KVCache::clone() const {
  KVCache copy = KVCache(ModelConfig{});
  copy.head_dim_ = head_dim_;
  copy.layers_.resize(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) copy.layers_[i].kv_heads = layers_[i].kv_heads;
  copy.reserve(capacity_);
  copy.next_position_ = next_position_;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& from = layers_[i];
    Layer& to = copy.layers_[i];
    to.rows = from.rows;
    if (from.rows == 0) continue;
    copy_heads(from.keys.data(), head_stride(), to.keys.data(), copy.head_stride(), from.kv_heads,
               from.rows * head_dim_);
    copy_heads(from.values.data(), head_stride(), to.values.data(), copy.head_stride(),
               from.kv_heads, from.rows * head_dim_);
  }
  return copy;
}

void KVCache::copy_from(const KVCache& other, int64_t rows) {
  assert(other.layers_.size() == layers_.size() && other.head_dim_ == head_dim_);
  truncate(0);
  next_position_ = std::min(rows, other.next_position_);
  reserve(next_position_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& from = other.layers_[i];
    Layer& to = layers_[i];
    to.rows = std::min(next_position_, from.rows);
    if (to.rows == 0) continue;
    const int64_t floats = to.rows * head_dim_;
    copy_heads(from.keys.data(), other.head_stride(), to.keys.data(), head_stride(), from.kv_heads,
               floats);
    copy_heads(from.values.data(), other.head_stride(), to.values.data(), head_stride(),
               from.kv_heads, floats);
  }
}

int64_t KVCache::bytes() const {
  int64_t heads = 0;
  for (const Layer& layer : layers_) heads += layer.kv_heads;
  return 2 * heads * head_stride() * static_cast<int64_t>(sizeof(float));
}

}  // namespace kvcast

#include "model/kv_cache.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "model/config_limits.h"

namespace kvcast {
static_assert(kMaxHeadDim <= kMostHeadElements);
namespace {

/// Copies the first `bytes` of every head between two buffers of different capacity.
void copy_heads(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride,
                int64_t heads, int64_t bytes) {
  if (bytes == 0) return;  // either may be null then
  for (int64_t head = 0; head < heads; ++head) {
    std::memcpy(to + head * to_stride, from + head * from_stride, static_cast<size_t>(bytes));
  }
}

}  // namespace

int64_t kv_token_bytes(const ModelConfig& config, KvType type) {
  int64_t heads = 0;
  for (const LayerConfig& layer : config.layers) heads += layer.kv_heads;
  return 2 * heads * kv_row_bytes(type, config.head_dim);
}

KVCache::KVCache(const ModelConfig& config, KvType type) : type_(type), head_dim_(config.head_dim) {
  layers_.resize(config.layers.size());
  for (size_t i = 0; i < layers_.size(); ++i) layers_[i].kv_heads = config.layers[i].kv_heads;
}

int64_t KVCache::Layer::rows_before(int64_t position) const {
  return std::ranges::lower_bound(positions, position) - positions.begin();
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
  const int64_t old_stride = head_bytes();
  const int64_t new_stride = capacity * row_bytes();
  // All memory is asked for before anything is moved, so that running out changes nothing. Fresh
  // pages are touched only as rows are copied, and the old ones go as they are.
  std::vector<AlignedBuffer<std::byte>> grown;
  grown.reserve(2 * layers_.size());
  for (Layer& layer : layers_) {
    layer.positions.reserve(static_cast<size_t>(capacity));
    for (int i = 0; i < 2; ++i)
      grown.emplace_back(static_cast<size_t>(layer.kv_heads * new_stride));
  }
  auto next = grown.begin();
  for (Layer& layer : layers_) {
    for (AlignedBuffer<std::byte>* buffer : {&layer.keys, &layer.values}) {
      if (layer.rows > 0) {
        copy_heads(buffer->data(), old_stride, next->data(), new_stride, layer.kv_heads,
                   layer.rows * row_bytes());
      }
      *buffer = std::move(*next++);
    }
  }
  capacity_ = capacity;
}

void KVCache::place(std::byte* rows, HeadNormRopeArgs& args) const {
  args.out = type_ == KvType::kF32 ? reinterpret_cast<float*>(rows) : nullptr;
  args.out_bf16 = type_ == KvType::kBf16 ? reinterpret_cast<uint16_t*>(rows) : nullptr;
  args.out_int8 = type_ == KvType::kInt8 ? reinterpret_cast<int8_t*>(rows) : nullptr;
  args.out_row_stride = kv_row_elements(type_, head_dim_);
  args.out_head_stride = head_stride();
}

void KVCache::place_keys(int64_t layer, int64_t offset, HeadNormRopeArgs& args) {
  assert(layers_[layer].rows + offset + args.rows <= capacity_);
  args.rotate_int8 = true;
  place(layers_[layer].keys.data() + (layers_[layer].rows + offset) * row_bytes(), args);
}

void KVCache::place_values(int64_t layer, int64_t offset, HeadNormRopeArgs& args) {
  assert(layers_[layer].rows + offset + args.rows <= capacity_);
  args.rotate_int8 = false;
  place(layers_[layer].values.data() + (layers_[layer].rows + offset) * row_bytes(), args);
}

void KVCache::commit(int64_t layer_index, int64_t count, const int64_t* positions) {
  Layer& layer = layers_[layer_index];
  for (int64_t row = 0; row < count; ++row) {
    layer.positions.push_back(positions != nullptr ? positions[row] : next_position_ + row);
  }
  layer.rows += count;
}

int64_t KVCache::held_bytes(int64_t rows) const {
  int64_t heads = 0;
  for (const Layer& layer : layers_) heads += layer.kv_heads;
  return 2 * heads * rows * row_bytes();
}

void KVCache::copy_held(int64_t layer, int64_t rows, std::byte* out) const {
  const int64_t bytes = rows * row_bytes(), heads = layers_[layer].kv_heads;
  copy_heads(layers_[layer].keys.data(), head_bytes(), out, bytes, heads, bytes);
  copy_heads(layers_[layer].values.data(), head_bytes(), out + heads * bytes, bytes, heads, bytes);
}

void KVCache::append_held(int64_t layer, int64_t rows, const std::byte* in) {
  Layer& to = layers_[layer];
  assert(to.rows + rows <= capacity_);
  const int64_t bytes = rows * row_bytes(), first = to.rows * row_bytes();
  copy_heads(in, bytes, to.keys.data() + first, head_bytes(), to.kv_heads, bytes);
  copy_heads(in + to.kv_heads * bytes, bytes, to.values.data() + first, head_bytes(), to.kv_heads,
             bytes);
  commit(layer, rows);
}

void KVCache::make_exact(int64_t count) {
  exact_rows_ += count;
  std::erase_if(kept_, [this](const KeptRows& kept) { return kept.end() <= exact_rows_; });
}

void KVCache::keep_residual(const ResidualRows& residual, int64_t model_dim) {
  const bool goes_on = !kept_.empty() && kept_.back().end() == next_position_ &&
                       kept_.back().layer == residual.layer;
  if (!goes_on) kept_.push_back({residual.layer, next_position_, model_dim, {}});
  auto& data = kept_.back().data;
  data.insert(data.end(), residual.data, residual.data + residual.rows * model_dim);
}

KVCache::ResidualRows KVCache::kept_residual() const {
  for (const KeptRows& kept : kept_) {
    if (kept.begin > exact_rows_ || kept.end() <= exact_rows_) continue;
    return {.layer = kept.layer,
            .rows = kept.end() - exact_rows_,
            .data = kept.data.data() + (exact_rows_ - kept.begin) * kept.model_dim};
  }
  return {};
}

void KVCache::truncate(int64_t position) {
  next_position_ = std::min(next_position_, position);
  exact_rows_ = std::min(exact_rows_, position);
  for (Layer& layer : layers_) {
    layer.rows = layer.rows_before(position);
    layer.positions.resize(static_cast<size_t>(layer.rows));
  }
  std::erase_if(kept_, [position](const KeptRows& kept) { return kept.begin >= position; });
  if (!kept_.empty() && kept_.back().end() > position) {
    KeptRows& last = kept_.back();
    last.data.resize(static_cast<size_t>((position - last.begin) * last.model_dim));
  }
}

KVCache KVCache::clone() const {
  KVCache copy(ModelConfig{}, type_);
  copy.head_dim_ = head_dim_;
  copy.layers_.resize(layers_.size());
  for (size_t i = 0; i < layers_.size(); ++i) copy.layers_[i].kv_heads = layers_[i].kv_heads;
  copy.reserve(capacity_);
  copy.next_position_ = next_position_;
  copy.exact_rows_ = exact_rows_;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& from = layers_[i];
    Layer& to = copy.layers_[i];
    to.rows = from.rows;
    to.positions = from.positions;
    if (from.rows == 0) continue;
    const int64_t bytes = from.rows * row_bytes();
    copy_heads(from.keys.data(), head_bytes(), to.keys.data(), copy.head_bytes(), from.kv_heads,
               bytes);
    copy_heads(from.values.data(), head_bytes(), to.values.data(), copy.head_bytes(), from.kv_heads,
               bytes);
  }
  return copy;
}

void KVCache::copy_from(const KVCache& other, int64_t position) {
  assert(other.layers_.size() == layers_.size() && other.head_dim_ == head_dim_ &&
         other.type_ == type_);
  truncate(0);
  next_position_ = std::min(position, other.next_position_);
  exact_rows_ = std::min(position, other.exact_rows_);
  reserve(next_position_);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& from = other.layers_[i];
    Layer& to = layers_[i];
    to.rows = from.rows_before(next_position_);
    to.positions.assign(from.positions.begin(), from.positions.begin() + to.rows);
    if (to.rows == 0) continue;
    const int64_t bytes = to.rows * row_bytes();
    copy_heads(from.keys.data(), other.head_bytes(), to.keys.data(), head_bytes(), from.kv_heads,
               bytes);
    copy_heads(from.values.data(), other.head_bytes(), to.values.data(), head_bytes(),
               from.kv_heads, bytes);
  }
}

void KVCache::take_exact_rows(const KVCache& other, int64_t end) {
  end = std::min({end, other.exact_rows_, next_position_});
  if (end <= exact_rows_) return;
  const int64_t from = exact_rows_ * row_bytes(), bytes = (end - exact_rows_) * row_bytes();
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& to = layers_[i];
    const Layer& source = other.layers_[i];
    copy_heads(source.keys.data() + from, other.head_bytes(), to.keys.data() + from, head_bytes(),
               to.kv_heads, bytes);
    copy_heads(source.values.data() + from, other.head_bytes(), to.values.data() + from,
               head_bytes(), to.kv_heads, bytes);
  }
  make_exact(end - exact_rows_);
}

int64_t KVCache::bytes() const {
  int64_t kept_bytes = 0;
  for (const KeptRows& kept : kept_) {
    kept_bytes += static_cast<int64_t>(kept.data.capacity() * sizeof(float));
  }
  return held_bytes(capacity_) + kept_bytes;
}

}  // namespace kvcast

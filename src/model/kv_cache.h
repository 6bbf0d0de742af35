#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/kernels.h"
#include "model/config.h"

namespace kvcast {

/// Bytes that the keys and values of one token take in all layers of a model.
int64_t kv_token_bytes(const ModelConfig& config, KvType type);

/// Keys and values of one sequence in every layer of one model, as f32, as bf16 or in 8
/// bits (KvType). Keys are stored after k_norm and RoPE. The cache knows the position of every row
/// and of the next token; nobody else tracks positions. A layer need not have a row for every
/// position: strategies that drop tokens leave gaps. Not thread-safe; movable; copying is explicit
/// (clone).
class KVCache {
 public:
  explicit KVCache(const ModelConfig& config, KvType type = KvType::kF32);

  [[nodiscard]] int64_t n_layers() const { return static_cast<int64_t>(layers_.size()); }
  [[nodiscard]] KvType type() const { return type_; }
  /// Rows (tokens) that the layer holds.
  [[nodiscard]] int64_t rows(int64_t layer) const { return layers_[layer].rows; }
  /// Their positions, ascending.
  [[nodiscard]] std::span<const int64_t> positions(int64_t layer) const {
    return layers_[layer].positions;
  }
  /// Rows that all of layers [0, layers) hold.
  [[nodiscard]] int64_t rows_in_first(int64_t layers) const;
  /// Position of the next token.
  [[nodiscard]] int64_t next_position() const { return next_position_; }
  [[nodiscard]] bool empty() const { return next_position_ == 0; }
  /// How many of the first positions hold, in every layer, what the model itself computes there: no
  /// forecast, no gap, and nothing that was computed over one.
  [[nodiscard]] int64_t exact_rows() const { return exact_rows_; }

  /// Room for `rows` rows in every layer; keeps what is held. Growth is geometric. Throws
  /// std::bad_alloc without having changed anything.
  void reserve(int64_t rows);

  /// Lets `args` write keys, or values, where the rows after the layer's last go, from the
  /// `offset`-th of them on; room must be reserved. A negative offset overwrites rows that the
  /// layer has. Different rows may be written at once.
  void place_keys(int64_t layer, int64_t offset, HeadNormRopeArgs& args);
  void place_values(int64_t layer, int64_t offset, HeadNormRopeArgs& args);
  /// The `count` rows written there are the layer's now. `positions` [count], ascending; null: from
  /// next_position() on.
  void commit(int64_t layer, int64_t count, const int64_t* positions = nullptr);

  /// Bytes that the first `rows` rows of all layers are held in.
  [[nodiscard]] int64_t held_bytes(int64_t rows) const;
  /// The layer's first `rows` rows as they are held, [keys, values][kv_heads, rows].
  void copy_held(int64_t layer, int64_t rows, std::byte* out) const;
  /// Appends and commits `rows` such rows; room must be reserved.
  void append_held(int64_t layer, int64_t rows, const std::byte* in);

  /// The model itself has run `count` more tokens: the next position moves on.
  void advance(int64_t count) {
    if (exact_rows_ == next_position_) exact_rows_ += count;
    next_position_ += count;
  }
  /// The next position moves on over `count` tokens that are forecast or left out.
  void advance_inexact(int64_t count) { next_position_ += count; }
  /// The next `count` rows after the exact ones have been overwritten by exact ones.
  void make_exact(int64_t count);

  /// Of rows whose keys and values are exact before `layer`: what enters that layer.
  struct ResidualRows {
    int64_t layer = 0;
    int64_t rows = 0;
    const float* data = nullptr;  // [rows, model_dim]
  };
  /// The next rows, which are about to be appended, are such rows: a copy of the residual stream is
  /// kept until they are exact throughout. Copies of the cache do without.
  void keep_residual(const ResidualRows& residual, int64_t model_dim);
  /// What is kept of the rows from exact_rows() on; none: no rows.
  [[nodiscard]] ResidualRows kept_residual() const;

  /// Forgets everything from position `position` on.
  void truncate(int64_t position);

  /// A second cache with the same contents.
  [[nodiscard]] KVCache clone() const;

  /// Replaces the contents by what `other`, a cache of the same model, holds before `position`.
  /// Keeps the memory it has if that is enough.
  void copy_from(const KVCache& other, int64_t position);

  /// Takes over the exact rows that `other` has beyond this cache's, up to position `end`, before
  /// which both hold the same tokens and this one has all rows.
  void take_exact_rows(const KVCache& other, int64_t end);

  /// [kv_heads][head_stride] elements of type(); the first rows(layer) * kv_row_elements of each
  /// head are filled.
  [[nodiscard]] const std::byte* keys(int64_t layer) const { return layers_[layer].keys.data(); }
  [[nodiscard]] const std::byte* values(int64_t layer) const {
    return layers_[layer].values.data();
  }
  /// Elements from one KV head to the next.
  [[nodiscard]] int64_t head_stride() const {
    return capacity_ * kv_row_elements(type_, head_dim_);
  }
  /// Rows that there is room for.
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  [[nodiscard]] int64_t kv_heads(int64_t layer) const { return layers_[layer].kv_heads; }
  [[nodiscard]] int64_t head_dim() const { return head_dim_; }
  /// Bytes of memory held for keys and values, and for what is kept.
  [[nodiscard]] int64_t bytes() const;

 private:
  struct Layer {
    int64_t kv_heads = 0;
    int64_t rows = 0;
    std::vector<int64_t> positions;         // [rows], ascending
    AlignedBuffer<std::byte> keys, values;  // [kv_heads, capacity] rows

    /// Rows before `position`.
    [[nodiscard]] int64_t rows_before(int64_t position) const;
  };
  /// Bytes of one row of one head.
  [[nodiscard]] int64_t row_bytes() const { return kv_row_bytes(type_, head_dim_); }
  [[nodiscard]] int64_t head_bytes() const { return capacity_ * row_bytes(); }
  void place(std::byte* rows, HeadNormRopeArgs& args) const;

  /// ResidualRows from position `begin` on.
  struct KeptRows {
    int64_t layer = 0, begin = 0, model_dim = 0;
    std::vector<float> data;
    [[nodiscard]] int64_t end() const {
      return begin + static_cast<int64_t>(data.size()) / model_dim;
    }
  };

  KvType type_ = KvType::kF32;
  int64_t head_dim_ = 0;
  int64_t capacity_ = 0;
  int64_t next_position_ = 0;
  int64_t exact_rows_ = 0;
  std::vector<Layer> layers_;
  std::vector<KeptRows> kept_;  // ascending, apart
};

}  // namespace kvcast

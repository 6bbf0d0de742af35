// What weights a model consists of, and where files keep them. Every list of a model's tensors is
// made here: loading, converting, made-up weights, counts, the trainer and the tests loop over it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace kvcast {

/// What a weight is to the forward pass.
enum class Role {
  kEmbeddings,
  kLmHead,
  kFinalNorm,
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kQueryBias,
  kKeyBias,
  kValueBias,
  kQueryNorm,
  kKeyNorm,
  kAttentionOutput,
  kFeedForwardNorm,
  kGate,
  kUp,
  kDown,
};

/// A matrix [rows, columns] or a vector [rows].
struct Weight {
  Role role;
  int64_t layer;    // -1: of no layer
  int64_t rows;     // output features, or a vector's length
  int64_t columns;  // inputs; 0: a vector

  [[nodiscard]] bool is_matrix() const { return columns > 0; }
  [[nodiscard]] int64_t elements() const { return is_matrix() ? rows * columns : rows; }
};

/// Everything that a model of this config has, in a fixed order; a tied LM head is no weight.
std::vector<Weight> model_weights(const ModelConfig& config);
/// What layer `layer` has.
std::vector<Weight> layer_weights(const ModelConfig& config, int64_t layer);

/// What a file calls a weight: "{}" stands for the layer. Weights next to each other in
/// model_weights' order that share a name are one tensor, their rows below each other.
struct TensorName {
  Role role;
  std::string_view pattern;
};

/// A way to store a model: Hugging Face's, packed, GGUF, the trainer's.
struct StoredForm {
  std::span<const TensorName> names;
  /// The rows of a query or key head alternate between the halves that RoPE turns with each other
  /// (0, h / 2, 1, h / 2 + 1, ...), where Hugging Face has one half after the other.
  bool interleaved_heads = false;
};

/// Rows [first_row, first_row + rows) of a stored tensor of `stored_rows` rows.
struct TensorPart {
  std::string name;
  int64_t stored_rows = 0, first_row = 0, rows = 0;
  /// Not 0: rows are interleaved in heads of as many.
  int64_t interleaved = 0;

  /// Which row of the stored tensor is row `row` of the part.
  [[nodiscard]] int64_t stored_row(int64_t row) const;
  [[nodiscard]] bool is_whole() const { return rows == stored_rows && interleaved == 0; }
};

/// A tensor in one form, and the parts of another form that it is made of, below each other.
struct LayoutEntry {
  Role role = Role::kEmbeddings;  // of its first weight
  int64_t layer = -1;
  std::string name;
  int64_t rows = 0, columns = 0;  // as in Weight
  std::vector<TensorPart> parts;

  /// A tensor that is the same in both forms.
  static LayoutEntry whole(std::string name, int64_t rows, int64_t columns = 0);

  [[nodiscard]] bool is_matrix() const { return columns > 0; }
  /// [rows, columns] or [rows].
  [[nodiscard]] std::vector<int64_t> shape() const;
};

/// The tensors of a model as `form` has them, each with where `stored` keeps it.
std::vector<LayoutEntry> tensor_layout(const ModelConfig& config, const StoredForm& form,
                                       const StoredForm& stored);

}  // namespace kvcast

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "io/safetensors.h"
#include "kernels/packed_matrix.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/weight_reader.h"

namespace kvcast {

struct Checkpoint;  // checkpoint.h

/// One decoder layer's weights. Matrices are packed, norms are f32.
struct LayerWeights {
  std::vector<float> attn_norm, ffn_norm;  // [model_dim]
  std::vector<float> q_norm, k_norm;       // [head_dim]; empty if the model does not normalise
  std::vector<float> q_bias;               // [query_width]; empty if the model has none
  std::vector<float> k_bias, v_bias;       // [kv_width]; likewise
  PackedMatrix q_proj;                     // [query_width, model_dim]
  PackedMatrix k_proj, v_proj;             // [kv_width, model_dim]
  PackedMatrix out_proj;                   // [model_dim, query_width]
  PackedMatrix proj_1;                     // [2 * ffn_dim, model_dim]: gate above up
  PackedMatrix proj_2;                     // [model_dim, ffn_dim]
};

/// All weights of a model, held once. Immutable after construction; share freely between threads.
struct ModelWeights {
  PackedMatrix embeddings;  // [vocab_size, model_dim]
  PackedMatrix lm_head;     // [vocab_size, model_dim]; empty (n() == 0) when tied to the embeddings
  std::vector<float> final_norm;  // [model_dim]
  std::vector<LayerWeights> layers;

  [[nodiscard]] const PackedMatrix& output_embeddings() const {
    return lm_head.n() > 0 ? lm_head : embeddings;
  }
  [[nodiscard]] int64_t bytes() const;
  /// What most of the layers' weights are held as.
  [[nodiscard]] WeightType main_type() const;
};

/// How packed files hold a model, whatever its family; also how the forward pass does.
extern const StoredForm kPackedForm;

/// Where each of a model's weights comes from and goes to: what loading, making up and writing them
/// have in common. One of the pointers is null; they lead into the ModelWeights that they were made
/// for.
struct WeightSlot {
  PackedMatrix* matrix = nullptr;
  std::vector<float>* vector = nullptr;
  LayoutEntry entry;  ///< named as in packed files
};
/// Makes room for the config's layers in `weights` and lists everything in it. `stored`: whose
/// parts the entries have.
std::vector<WeightSlot> weight_slots(ModelWeights& weights, const ModelConfig& config,
                                     const StoredForm& stored);

/// Packs the matrices of a checkpoint, or maps them where they are packed as `type` (null: as
/// anything) already. Like the functions below, throws std::bad_alloc where memory runs out. Every
/// tensor's shape is checked against the config; errors name the file, the tensor and the shape
/// expected.
Result<ModelWeights> load_weights(const Checkpoint& checkpoint, std::optional<WeightType> type,
                                  int threads);

/// load_weights(checkpoint, null, ...).main_type(), from the headers alone.
Result<WeightType> main_type(const Checkpoint& checkpoint);

/// What a model takes from another one instead of a file.
struct SharedWeights {
  const ModelWeights& from;
  /// [layers of the model that is loaded] which layer of `from` it has; kOwnLayer: its own. What is
  /// of no layer is all shared.
  std::span<const int64_t> layers;
};
inline constexpr int64_t kOwnLayer = -1;
/// The same of a checkpoint that holds its own layers alone; nothing is copied. Shapes of shared
/// layers must be equal to the config's.
Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const SharedWeights& shared,
                                  std::optional<WeightType> type, int threads);

/// Seeded random weights of a shape, for measuring speed without a download.
ModelWeights random_weights(const ModelConfig& config, WeightType type, int threads, uint64_t seed);

/// A seeded random matrix, uniform within ±1/sqrt(k).
PackedMatrix random_matrix(int64_t n, int64_t k, WeightType type, int threads, uint64_t seed);

/// The weights as the tensors of a packed file; their bytes stay those of `weights`.
std::vector<TensorToWrite> packed_tensors(ModelWeights& weights, const ModelConfig& config);
/// Of a model that shares weights: its own alone.
std::vector<TensorToWrite> packed_tensors(ModelWeights& weights, const ModelConfig& config,
                                          std::span<const int64_t> shared_layers);

}  // namespace kvcast

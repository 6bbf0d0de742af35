#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvcast/result.h"
#include "model/transformer.h"

namespace kvcast {

/// Scratch memory of Predictor::predict; reused between calls.
struct PredictorWorkspace {
  AlignedBuffer<float> keys, values;        // [rows, sum of the base layers' kv_width]
  std::vector<int64_t> positions;           // [rows]
  AlignedBuffer<float> rope_cos, rope_sin;  // [rows, head_dim / 2]
};

/// The predictor P (method §3): one linear map with bias per base layer for keys and one for
/// values, from the auxiliary's K/V in layer j_i to the base's in layer i. All base layers that
/// read the same auxiliary layer form one wide product. Immutable; share freely between threads.
class Predictor {
 public:
  /// Reads a predictor file; every tensor is checked against both configs and the layer map (which
  /// must already be valid for them).
  static Result<std::unique_ptr<Predictor>> load(const std::filesystem::path& file,
                                                 const ModelConfig& base,
                                                 const ModelConfig& auxiliary,
                                                 const std::vector<int64_t>& layer_map,
                                                 WeightType type, int threads);
  /// Seeded random maps, for measuring speed without a download.
  static std::unique_ptr<Predictor> random(const ModelConfig& base, const ModelConfig& auxiliary,
                                           const std::vector<int64_t>& layer_map, WeightType type,
                                           int threads, uint64_t seed);

  /// How many auxiliary layers have to run: one past the last that the layer map names.
  [[nodiscard]] int64_t auxiliary_layers_needed() const {
    return static_cast<int64_t>(sources_.size());
  }

  /// Forecasts the rows of every base layer that reads auxiliary layer `raw.layer` and appends them
  /// to the base caches: K̂_i = W^K_i K_A + b^K_i, then the base's k_norm and RoPE; V̂_i likewise,
  /// without them. `sequences` hold the base caches (room reserved, next_position() the position of
  /// each first row) in the order of raw's rows. The caller advances the caches.
  void predict(const RawKeyValues& raw, std::span<const SequenceRows> sequences,
               const Transformer& base, PredictorWorkspace& workspace) const;

  [[nodiscard]] int64_t bytes() const;
  [[nodiscard]] int64_t parameter_count() const;

  /// The maps as the tensors of a packed file; their bytes stay those of this object.
  [[nodiscard]] std::vector<TensorToWrite> packed_tensors() const;
  /// The maps as a plain predictor file holds them, in f32.
  [[nodiscard]] std::map<std::string, FloatTensor> unpacked(int threads) const;

 private:
  /// What one auxiliary layer feeds.
  struct Source {
    std::vector<int64_t> base_layers;         // i with j_i == this layer, ascending
    PackedMatrix keys, values;                // [sum of base kv_width, auxiliary kv_width]
    std::vector<float> key_bias, value_bias;  // [sum of base kv_width]
  };
  std::vector<Source> sources_;  // [auxiliary layers needed]
  std::vector<int64_t> base_kv_widths_;
};

}  // namespace kvcast

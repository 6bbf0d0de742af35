#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvcast/result.h"
#include "model/forecast_plan.h"
#include "model/transformer.h"

namespace kvcast {

/// A tensor in memory, row-major.
struct FloatTensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

/// Scratch memory of a Forecast; reused between forecasts.
struct PredictorWorkspace {
  AlignedBuffer<float> blocks;              // [threads, rows of a block, product and its input]
  AlignedBuffer<float> streams;             // the predictor's kept streams, [rows, width] each
  std::vector<int64_t> positions;           // [rows]
  AlignedBuffer<float> rope_cos, rope_sin;  // [rows, head_dim / 2], as the base rotates
};

/// The predictor P (method §3): one linear map with bias per forecast base layer for keys and one
/// for values, from the input that the plan names. All base layers that read the same input form
/// one wide product. Immutable; share freely between threads.
class Predictor {
 public:
  /// Reads a predictor file; every tensor is checked against both configs and the plan (which must
  /// already be valid for them). `type` null: as the file holds them.
  static Result<std::unique_ptr<Predictor>> load(const std::filesystem::path& file,
                                                 const ModelConfig& base,
                                                 const ModelConfig& auxiliary,
                                                 const ForecastPlan& plan,
                                                 std::optional<WeightType> type, int threads);
  /// Seeded random maps, for measuring speed without a download.
  static std::unique_ptr<Predictor> random(const ModelConfig& base, const ModelConfig& auxiliary,
                                           const ForecastPlan& plan, WeightType type, int threads,
                                           uint64_t seed);

  [[nodiscard]] int64_t bytes() const;
  [[nodiscard]] int64_t parameter_count() const;

  /// The maps as the tensors of a packed file; their bytes stay those of this object.
  [[nodiscard]] std::vector<TensorToWrite> packed_tensors() const;
  /// The maps as a plain predictor file holds them, in f32.
  [[nodiscard]] std::map<std::string, FloatTensor> unpacked(int threads) const;

 private:
  friend class Forecast;
  /// What one input feeds.
  struct Source {
    ForecastInput input;
    std::vector<int64_t> base_layers;         // that read it, ascending
    PackedMatrix keys, values;                // [sum of base kv_width, input width]
    std::vector<float> key_bias, value_bias;  // [sum of base kv_width]
    std::vector<float> unit_norm;             // [the reader's model_dim] ones, if it is normalised
    float norm_eps = 0;
  };
  static std::unique_ptr<Predictor> without_maps(const ModelConfig& base,
                                                 const ModelConfig& auxiliary,
                                                 const ForecastPlan& plan);
  /// A residual stream that is kept for maps which read it beside a later layer's.
  struct Stream {
    PromptReader reader = PromptReader::kAuxiliary;
    int64_t layer = 0;
    int64_t width = 0;
    bool operator==(const Stream&) const = default;
  };
  std::vector<Source> sources_;
  std::vector<Stream> kept_;
  std::vector<int64_t> base_kv_widths_;
};

/// The forecast of one pass of rows: what the predictor makes of the auxiliary's K/V, layer by
/// layer, goes to the base's caches. Used by one thread, while all it refers to lives.
class Forecast {
 public:
  /// `sequences` hold the base caches (room reserved, next_position() the position of each first
  /// row) in the order of the auxiliary's rows. The caller advances the caches.
  Forecast(const Predictor& predictor, const Transformer& base,
           std::span<const SequenceRows> sequences, PredictorWorkspace& workspace);

  /// Forecasts the rows of every base layer that reads layer `raw.layer` of `reader` and appends
  /// them to the base caches: K̂_i = W^K_i x + b^K_i, then the base's k_norm and RoPE; V̂_i likewise,
  /// without them. Throws std::bad_alloc with the caches as they were before one of its inputs.
  void add(PromptReader reader, const RawKeyValues& raw);

 private:
  /// Where the kept streams of `reader` are, [rows, width] each, in the workspace.
  [[nodiscard]] float* kept_stream(PromptReader reader, int64_t layer) const;
  void add_source(const Predictor::Source& source, const RawKeyValues& raw);
  void forecast_block(const Predictor::Source& source, const RawKeyValues& raw, int64_t begin,
                      int64_t end, float* scratch) const;
  /// What the maps read of a block of rows, [rows, input width] each.
  struct BlockInput {
    const float* keys = nullptr;
    const float* values = nullptr;
  };
  /// Rows [begin, end) of the input; `scratch` holds those that are made first.
  BlockInput block_input(const Predictor::Source& source, const RawKeyValues& raw, int64_t begin,
                         int64_t end, float* scratch) const;

  const Predictor& predictor_;
  const Transformer& base_;
  std::span<const SequenceRows> sequences_;
  PredictorWorkspace& workspace_;
  int64_t rows_ = 0;
};

}  // namespace kvcast

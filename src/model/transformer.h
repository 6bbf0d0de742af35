// The forward pass of a decoder, whatever its family, as three primitives on rows of hidden states:
// embed, run_layers, logits. Prefill strategies and the decode loop are written in terms of these
// only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_choice.h"
#include "kernels/kernels.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/rope.h"
#include "model/weights.h"

namespace kvcast {

/// Scratch memory of a forward pass; reused between calls, grows as needed. One per thread of
/// calls.
struct Workspace {
  AlignedBuffer<float> rows;                  // [rows, model_dim] hidden states of the caller
  AlignedBuffer<float> normed;                // [rows, model_dim], or as bf16
  AlignedBuffer<float> q;                     // [rows, query_width]
  AlignedBuffer<float> k, v;                  // [rows, kv_width]
  AlignedBuffer<float> attention;             // [rows, query_width], or as bf16
  AlignedBuffer<float> hidden;                // [row block, ffn_dim], or as bf16
  AlignedBuffer<float> gate_up;               // [rows, 2 * ffn_dim], of a SteppedRun only
  std::vector<int64_t> positions;             // [rows]
  AlignedBuffer<float> rope_cos, rope_sin;    // [rows, head_dim / 2]
  std::vector<HeadNormRopeArgs> cache_rows;   // [2 * sequences] keys and values on their way
  std::vector<AttentionArgs> attention_args;  // [sequences]
};

/// `rows` new rows that belong to the sequence that `cache` holds.
struct SequenceRows {
  KVCache* cache = nullptr;
  int64_t rows = 0;
  /// [rows], ascending, none of them in the cache yet; null: from next_position() on, or where they
  /// overwrite.
  const int64_t* positions = nullptr;
  /// The rows overwrite those from the cache's exact_rows() on, of which it has as many.
  bool overwrites = false;
  /// How many of the last of these rows LastLayerOutput::kLastRows computes.
  int64_t outputs = 1;

  /// Where the first of the rows goes.
  [[nodiscard]] int64_t first_position() const {
    return overwrites ? cache->exact_rows() : cache->next_position();
  }
};

/// A layer's keys before k_norm and RoPE, and values, of the rows being run, and the residual
/// stream that they come from: what the predictor reads (method §3). Valid during the call only.
struct RawKeyValues {
  int64_t layer = 0;
  const float* keys = nullptr;      // [rows, kv_width]
  const float* values = nullptr;    // [rows, kv_width]
  const float* residual = nullptr;  // [rows, model_dim]
};

/// What attention works with and gives in one layer, of the rows that go through it. Valid during
/// the call only.
struct LayerAttention {
  int64_t layer = 0;
  const float* queries = nullptr;  // [rows, query_width], after q_norm and RoPE
  const float* outputs = nullptr;  // [rows, query_width], before out_proj
};

/// What the last layer of a run has to produce besides every row's K/V.
enum class LastLayerOutput {
  kAllRows,   ///< hidden states of every row, as between layers
  kLastRows,  ///< the last SequenceRows::outputs rows of each, moved to the front of the row buffer
  kNothing,   ///< K/V only: no query, attention, output projection or FFN
};

struct RunLayersOptions {
  int64_t first = 0;  ///< first layer to run
  int64_t last = 0;   ///< one past the last layer to run
  LastLayerOutput output = LastLayerOutput::kAllRows;
  /// The rows' K/V are in the caches already, as the last rows there (positions must be given):
  /// only queries are computed, as the base does in training (method §4).
  bool key_values_cached = false;
  /// Called in each layer once its raw K/V are known, before they are normed.
  std::function<void(const RawKeyValues&)> on_raw_key_values = {};
  /// Called in each layer after its attention; the caches hold its keys and values then.
  std::function<void(const LayerAttention&)> on_attention = {};
  /// If not null, [sequences]: attention paid by the last row of each sequence in layer `last - 1`,
  /// mean over query heads, one value per cache row.
  std::vector<std::vector<float>>* last_row_attention = nullptr;
  /// Checked before every layer; when it fires, run_layers returns false with caches half-filled,
  /// which the caller must truncate.
  std::stop_token stop = {};
};

/// Weights and shape of one model, immutable after loading: any number of threads may run it at
/// once, each with its own caches and Workspace.
class Transformer {
 public:
  /// `type` null: each matrix as it is stored.
  static Result<std::unique_ptr<Transformer>> load(Checkpoint checkpoint,
                                                   std::optional<WeightType> type, int threads);
  /// The same of what open_checkpoint opens.
  static Result<std::unique_ptr<Transformer>> load(const std::filesystem::path& path,
                                                   std::optional<WeightType> type, int threads);
  /// A checkpoint that takes the rest from another model's weights.
  static Result<std::unique_ptr<Transformer>> load(Checkpoint checkpoint,
                                                   const SharedWeights& shared,
                                                   std::optional<WeightType> type, int threads);
  /// Takes weights that fit `config`; `threads` is how many threads each call uses at most: calls
  /// with few rows use as many of them as are fastest (ThreadChoice).
  Transformer(ModelConfig config, ModelWeights weights, int threads);

  [[nodiscard]] const ModelConfig& config() const { return config_; }
  [[nodiscard]] const ModelWeights& weights() const { return weights_; }
  [[nodiscard]] int threads() const { return threads_; }
  [[nodiscard]] const RopeTable& rope() const { return rope_; }

  /// Hidden states of the tokens: rows [tokens.size(), model_dim]. Tokens must be in range.
  void embed(std::span<const int32_t> tokens, float* rows) const;

  /// Runs layers [first, last) on the concatenated rows of several sequences: appends each row's
  /// K/V to its sequence's cache and attends over it. The caller advances the caches when the rows
  /// have been through all layers it wants. Caches must have room reserved. `rows` [sum of rows,
  /// model_dim] is updated in place. False: stopped.
  bool run_layers(float* rows, std::span<const SequenceRows> sequences,
                  const RunLayersOptions& options, Workspace& workspace) const;

  /// Next-token logits of hidden states after the last layer: final norm and LM head.
  /// rows [count, model_dim] -> out [count, vocab_size].
  void logits(const float* rows, int64_t count, float* out, Workspace& workspace) const;

 private:
  friend class SteppedRun;
  struct Run;  // one call of run_layers
  /// Positions and angles of the rows, and scratch memory.
  void begin(Run& run) const;
  /// Memory for the widest layer at once: buffers that grew from layer to layer would leave holes
  /// in the heap.
  void reserve(Workspace& workspace, int64_t rows) const;
  /// Each layer is products and what lies between them.
  [[nodiscard]] std::span<const MatmulArgs> projections(Run& run, int64_t layer) const;
  void store_key_values(Run& run, int64_t layer) const;
  void keep_last_rows(Run& run, int64_t layer) const;
  [[nodiscard]] MatmulArgs attend(Run& run, int64_t layer) const;
  void feed_forward(Run& run, int64_t layer) const;
  void norm_for_feed_forward(Run& run, int64_t layer, int64_t first_row, int64_t rows) const;
  [[nodiscard]] MatmulArgs down_projection(Run& run, int64_t layer, int64_t first_row,
                                           int64_t rows) const;
  /// Optional RMSNorm per head, then RoPE at the positions of the rows from `first_row` on: x
  /// [rows, heads * head_dim]. Where the result goes is left open.
  [[nodiscard]] HeadNormRopeArgs norm_and_rotate(const float* x, int64_t first_row, int64_t rows,
                                                 int64_t heads,
                                                 const std::vector<float>& norm_weight,
                                                 const Workspace& workspace) const;

  ModelConfig config_;
  ModelWeights weights_;
  int threads_ = 1;
  mutable ThreadChoice step_threads_;  ///< of runs with few rows: decoding
  RopeTable rope_;
  struct {
    int64_t query = 0, kv = 0, ffn = 0;
  } widest_;  // over the layers
};

/// run_layers() of few rows, of which somebody else computes the products, one layer after the
/// other. The same arguments; `output` is all rows. Used by one thread at a time.
class SteppedRun {
 public:
  SteppedRun(const Transformer& model, float* rows, std::span<const SequenceRows> sequences,
             Workspace& workspace);
  ~SteppedRun();
  SteppedRun(const SteppedRun&) = delete;
  SteppedRun& operator=(const SteppedRun&) = delete;

  /// Computes what follows from the last products; returns the next ones, which read one input and
  /// stay valid until the next step. None: the layer is done, and the next step begins another.
  std::span<const MatmulArgs> step();
  /// The layer being run, or that the next step would begin.
  [[nodiscard]] int64_t layer() const { return layer_; }
  [[nodiscard]] bool between_layers() const { return products_ == Products::kNone; }

 private:
  enum class Products { kNone, kProjections, kOutput, kGateUp, kDown };

  const Transformer& model_;
  const RunLayersOptions options_;
  std::unique_ptr<Transformer::Run> run_;
  int64_t layer_ = 0;
  Products products_ = Products::kNone;  ///< the last that were returned
};

}  // namespace kvcast

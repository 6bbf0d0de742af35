// To read the forward pass, start at run_layers. Equations: method §2; what a config has besides
// (biases) or lacks (head norms) is an empty vector.
#include "model/transformer.h"

#include <algorithm>
#include <cassert>

#include "base/macros.h"
#include "base/stopwatch.h"
#include "model/checkpoint.h"
#include "model/transformer_run.h"

namespace kvcast {
namespace {

/// Rows that wait for the weights together.
constexpr int64_t kRowsOfAStep = 8;

}  // namespace

Result<std::unique_ptr<Transformer>> Transformer::load(const std::filesystem::path& path,
                                                       std::optional<WeightType> type,
                                                       int threads) {
  KVCAST_TRY(Checkpoint checkpoint, open_checkpoint(path));
  return load(std::move(checkpoint), type, threads);
}

Result<std::unique_ptr<Transformer>> Transformer::load(Checkpoint checkpoint,
                                                       std::optional<WeightType> type,
                                                       int threads) {
  KVCAST_TRY(ModelWeights weights, load_weights(checkpoint, type, threads));
  return std::make_unique<Transformer>(std::move(checkpoint.config), std::move(weights), threads);
}

Result<std::unique_ptr<Transformer>> Transformer::load(Checkpoint checkpoint,
                                                       const SharedWeights& shared,
                                                       std::optional<WeightType> type,
                                                       int threads) {
  KVCAST_TRY(ModelWeights weights, load_weights(checkpoint, shared, type, threads));
  return std::make_unique<Transformer>(std::move(checkpoint.config), std::move(weights), threads);
}

Transformer::Transformer(ModelConfig config, ModelWeights weights, int threads)
    : config_(std::move(config)),
      weights_(std::move(weights)),
      threads_(threads),
      step_threads_(threads),
      rope_(config_.rope.frequencies(config_.head_dim), config_.max_context_tokens) {
  for (int64_t i = 0; i < config_.n_layers(); ++i) {
    widest_.query = std::max(widest_.query, config_.query_width(i));
    widest_.kv = std::max(widest_.kv, config_.kv_width(i));
    widest_.ffn = std::max(widest_.ffn, config_.layers[i].ffn_dim);
  }
}

void Transformer::embed(std::span<const int32_t> tokens, float* rows) const {
  assert(std::ranges::all_of(
      tokens, [this](int32_t token) { return token >= 0 && token < config_.vocab_size; }));
  const bool is_step = std::ssize(tokens) <= kRowsOfAStep;
  weights_.embeddings.unpack_rows(tokens, rows, is_step ? step_threads_.threads() : threads_);
}

bool Transformer::run_layers(float* rows, std::span<const SequenceRows> sequences,
                             const RunLayersOptions& options, Workspace& workspace) const {
  Run run{.rows = rows,
          .sequences = sequences,
          .options = options,
          .workspace = workspace,
          .threads = threads_};
  begin(run);
  const bool is_step = run.total_rows <= kRowsOfAStep;
  const ThreadChoice::Call call = is_step ? step_threads_.begin() : ThreadChoice::Call{threads_};
  run.threads = call.threads;
  const Stopwatch watch;
  for (int64_t layer = options.first; layer < options.last; ++layer) {
    if (options.stop.stop_requested()) return false;
    run.attending = run.attending_in(layer);
    matmul_shared_input(projections(run, layer), run.threads);  // q, k, v of the normed rows
    if (!options.key_values_cached) store_key_values(run, layer);
    if (run.attending == Run::Attending::kNone) break;
    if (run.attending == Run::Attending::kLastRows) keep_last_rows(run, layer);
    matmul(attend(run, layer), run.threads);  // x += out_proj(attention(q, K, V))
    feed_forward(run, layer);                 // x += proj_2(silu(gate) * up)
  }
  if (is_step && run.is_whole(config_)) {
    step_threads_.end(call, run.work(), watch.elapsed_ms());
  }
  return true;
}

void Transformer::begin(Run& run) const {
  Workspace& w = run.workspace;
  w.positions.clear();
  for (const SequenceRows& sequence : run.sequences) {
    const int64_t first = sequence.first_position();
    for (int64_t r = 0; r < sequence.rows; ++r) {
      w.positions.push_back(sequence.positions ? sequence.positions[r] : first + r);
      assert(w.positions.back() < config_.max_context_tokens);
    }
    run.total_rows += sequence.rows;
  }
  const auto angles = static_cast<size_t>(run.total_rows * config_.head_dim / 2);
  rope_.fill(w.positions, w.rope_cos.ensure(angles), w.rope_sin.ensure(angles));
  reserve(w, run.total_rows);
}

void Transformer::reserve(Workspace& workspace, int64_t rows) const {
  const auto size = [](int64_t n, int64_t width) { return static_cast<size_t>(n * width); };
  workspace.normed.ensure(size(rows, config_.model_dim));
  workspace.k.ensure(size(rows, widest_.kv));
  workspace.v.ensure(size(rows, widest_.kv));
  workspace.q.ensure(size(rows, widest_.query));
  workspace.attention.ensure(size(rows, widest_.query));
  workspace.hidden.ensure(size(std::min(rows, kFfnRowBlock), widest_.ffn));
}

// h = attn_norm(x); q = h Wqᵀ + bq, k = h Wkᵀ + bk, v = h Wvᵀ + bv; many models have no biases.
std::span<const MatmulArgs> Transformer::projections(Run& run, int64_t layer) const {
  const LayerWeights& weights = weights_.layers[layer];
  Workspace& w = run.workspace;
  const int64_t dim = config_.model_dim, rows = run.total_rows;
  const ProductRows normed(w.normed, weights.q_proj);  // q, k and v: the same k and type

  rms_norm({.x = run.rows,
            .x_stride = dim,
            .weight = weights.attn_norm.data(),
            .out = normed.f32,
            .out_bf16 = normed.bf16,
            .out_stride = normed.stride,
            .rows = rows,
            .dim = dim,
            .eps = config_.norm_eps},
           run.threads);
  const auto product = [&](const PackedMatrix& weight, const std::vector<float>& bias, float* out) {
    return MatmulArgs{.a = normed.f32,
                      .a_bf16 = normed.bf16,
                      .a_stride = normed.stride,
                      .rows = rows,
                      .weight = &weight,
                      .bias = bias.empty() ? nullptr : bias.data(),
                      .out = out,
                      .out_stride = weight.n()};
  };
  run.products[0] = product(weights.k_proj, weights.k_bias, w.k.data());
  run.products[1] = product(weights.v_proj, weights.v_bias, w.v.data());
  run.products[2] = product(weights.q_proj, weights.q_bias, w.q.data());
  const bool all_queries = run.attending == Run::Attending::kAllRows;
  const size_t first = run.options.key_values_cached ? 2 : 0, last = all_queries ? 3 : 2;
  return std::span(run.products).subspan(first, last - first);
}

// k_norm (where the model has one) and RoPE on k; append k and v.
void Transformer::store_key_values(Run& run, int64_t layer) const {
  const LayerWeights& weights = weights_.layers[layer];
  Workspace& w = run.workspace;
  const int64_t kv_width = config_.kv_width(layer);
  const float *k = w.k.data(), *v = w.v.data();
  if (run.options.on_raw_key_values) run.options.on_raw_key_values({layer, k, v, run.rows});
  const int64_t heads = config_.layers[layer].kv_heads;
  w.cache_rows.clear();
  int64_t row = 0;
  for (const SequenceRows& sequence : run.sequences) {
    HeadNormRopeArgs keys =
        norm_and_rotate(k + row * kv_width, row, sequence.rows, heads, weights.k_norm, w);
    const int64_t offset =
        sequence.overwrites ? sequence.cache->exact_rows() - sequence.cache->rows(layer) : 0;
    sequence.cache->place_keys(layer, offset, keys);
    HeadNormRopeArgs values{.x = v + row * kv_width,
                            .x_stride = kv_width,
                            .rows = sequence.rows,
                            .heads = heads,
                            .head_dim = config_.head_dim};
    sequence.cache->place_values(layer, offset, values);
    w.cache_rows.push_back(keys);
    w.cache_rows.push_back(values);
    row += sequence.rows;
  }
  head_norm_rope(w.cache_rows, run.threads);
  const int64_t* positions = w.positions.data();
  for (const SequenceRows& sequence : run.sequences) {
    if (!sequence.overwrites) sequence.cache->commit(layer, sequence.rows, positions);
    positions += sequence.rows;
  }
}

/// From here on only the last rows of each sequence: moves those rows, their normed form and their
/// angles to the front, and computes their queries.
void Transformer::keep_last_rows(Run& run, int64_t layer) const {
  Workspace& w = run.workspace;
  const int64_t dim = config_.model_dim, half = config_.head_dim / 2;
  const PackedMatrix& q_proj = weights_.layers[layer].q_proj;
  const std::vector<float>& q_bias = weights_.layers[layer].q_bias;
  const ProductRows normed(w.normed, q_proj);
  int64_t end = 0, to = 0;
  for (const SequenceRows& sequence : run.sequences) {
    end += sequence.rows;
    for (int64_t from = end - sequence.outputs; from < end; ++from, ++to) {
      std::copy_n(run.rows + from * dim, dim, run.rows + to * dim);
      normed.copy_row(from, to, dim);
      std::copy_n(w.rope_cos.data() + from * half, half, w.rope_cos.data() + to * half);
      std::copy_n(w.rope_sin.data() + from * half, half, w.rope_sin.data() + to * half);
    }
  }
  matmul({.a = normed.f32,
          .a_bf16 = normed.bf16,
          .a_stride = normed.stride,
          .rows = to,
          .weight = &q_proj,
          .bias = q_bias.empty() ? nullptr : q_bias.data(),
          .out = w.q.data(),
          .out_stride = q_proj.n()},
         run.threads);
}

// q_norm (likewise) and RoPE on q; x += out_proj(softmax(q Kᵀ / sqrt(head_dim)) V), causal, of
// which the last product is left.
MatmulArgs Transformer::attend(Run& run, int64_t layer) const {
  const LayerWeights& weights = weights_.layers[layer];
  const LayerConfig& shape = config_.layers[layer];
  Workspace& w = run.workspace;
  const int64_t rows = run.attending_rows(), q_width = config_.query_width(layer);
  const int64_t dim = config_.model_dim;
  float* q = w.q.data();
  const ProductRows out(w.attention, weights.out_proj, run.options.on_attention != nullptr);
  HeadNormRopeArgs queries = norm_and_rotate(q, 0, rows, shape.query_heads, weights.q_norm, w);
  queries.out = q;
  queries.out_row_stride = q_width;
  queries.out_head_stride = config_.head_dim;
  head_norm_rope(queries, run.threads);

  auto* last_row_attention =
      layer + 1 == run.options.last ? run.options.last_row_attention : nullptr;
  if (last_row_attention) last_row_attention->resize(run.sequences.size());
  w.attention_args.clear();
  int64_t row = 0;
  for (size_t s = 0; s < run.sequences.size(); ++s) {
    const SequenceRows& sequence = run.sequences[s];
    const KVCache& cache = *sequence.cache;
    const int64_t sequence_rows = run.attending_of(sequence);
    if (sequence_rows == 0) continue;
    const int64_t end =
        sequence.overwrites ? cache.exact_rows() + sequence.rows : cache.rows(layer);
    AttentionArgs args{.q = q + row * q_width,
                       .q_stride = q_width,
                       .rows = sequence_rows,
                       .first_position = end - sequence_rows,
                       .keys = cache.keys(layer),
                       .values = cache.values(layer),
                       .head_stride = cache.head_stride(),
                       .out = out.f32 == nullptr ? nullptr : out.f32 + row * out.stride,
                       .out_bf16 = out.bf16 == nullptr ? nullptr : out.bf16 + row * out.stride,
                       .out_stride = out.stride};
    if (last_row_attention) {
      (*last_row_attention)[s].resize(static_cast<size_t>(cache.rows(layer)));
      args.last_row_probabilities = (*last_row_attention)[s].data();
    }
    w.attention_args.push_back(args);
    row += sequence_rows;
  }
  attention(w.attention_args,
            {.query_heads = shape.query_heads,
             .kv_heads = shape.kv_heads,
             .head_dim = config_.head_dim,
             .kv_type = run.sequences.front().cache->type()},
            run.threads);
  if (run.options.on_attention) run.options.on_attention({layer, q, out.f32});
  return {.a = out.f32,
          .a_bf16 = out.bf16,
          .a_stride = out.stride,
          .rows = rows,
          .weight = &weights.out_proj,
          .out = run.rows,
          .out_stride = dim,
          .accumulate = true};
}

// h = ffn_norm(x); [gate | up] = h W1ᵀ; x += (silu(gate) * up) W2ᵀ.
void Transformer::feed_forward(Run& run, int64_t layer) const {
  const LayerWeights& weights = weights_.layers[layer];
  Workspace& w = run.workspace;
  const int64_t rows = run.attending_rows(), block = std::min(rows, kFfnRowBlock);
  const ProductRows normed(w.normed, weights.proj_1), hidden(w.hidden, weights.proj_2);
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t count = std::min(block, rows - begin);
    norm_for_feed_forward(run, layer, begin, count);
    matmul_silu({.a = normed.f32,
                 .a_bf16 = normed.bf16,
                 .a_stride = normed.stride,
                 .rows = count,
                 .weight = &weights.proj_1,
                 .out = hidden.f32,
                 .out_bf16 = hidden.bf16,
                 .out_stride = hidden.stride},
                run.threads);
    matmul(down_projection(run, layer, begin, count), run.threads);
  }
}

void Transformer::norm_for_feed_forward(Run& run, int64_t layer, int64_t first_row,
                                        int64_t rows) const {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t dim = config_.model_dim;
  const ProductRows normed(run.workspace.normed, weights.proj_1);
  rms_norm({.x = run.rows + first_row * dim,
            .x_stride = dim,
            .weight = weights.ffn_norm.data(),
            .out = normed.f32,
            .out_bf16 = normed.bf16,
            .out_stride = normed.stride,
            .rows = rows,
            .dim = dim,
            .eps = config_.norm_eps},
           run.threads);
}

MatmulArgs Transformer::down_projection(Run& run, int64_t layer, int64_t first_row,
                                        int64_t rows) const {
  const LayerWeights& weights = weights_.layers[layer];
  const int64_t dim = config_.model_dim;
  const ProductRows hidden(run.workspace.hidden, weights.proj_2);
  return {.a = hidden.f32,
          .a_bf16 = hidden.bf16,
          .a_stride = hidden.stride,
          .rows = rows,
          .weight = &weights.proj_2,
          .out = run.rows + first_row * dim,
          .out_stride = dim,
          .accumulate = true};
}

HeadNormRopeArgs Transformer::norm_and_rotate(const float* x, int64_t first_row, int64_t rows,
                                              int64_t heads, const std::vector<float>& norm_weight,
                                              const Workspace& workspace) const {
  const int64_t angles = first_row * config_.head_dim / 2;
  return {.x = x,
          .x_stride = heads * config_.head_dim,
          .rows = rows,
          .heads = heads,
          .head_dim = config_.head_dim,
          .norm_weight = norm_weight.empty() ? nullptr : norm_weight.data(),
          .eps = config_.norm_eps,
          .rope_cos = workspace.rope_cos.data() + angles,
          .rope_sin = workspace.rope_sin.data() + angles};
}

void Transformer::logits(const float* rows, int64_t count, float* out, Workspace& workspace) const {
  const int64_t dim = config_.model_dim;
  const int threads = count <= kRowsOfAStep ? step_threads_.threads() : threads_;
  float* normed = workspace.normed.ensure(static_cast<size_t>(count * dim));
  rms_norm({.x = rows,
            .x_stride = dim,
            .weight = weights_.final_norm.data(),
            .out = normed,
            .out_stride = dim,
            .rows = count,
            .dim = dim,
            .eps = config_.norm_eps},
           threads);
  matmul({.a = normed,
          .a_stride = dim,
          .rows = count,
          .weight = &weights_.output_embeddings(),
          .out = out,
          .out_stride = config_.vocab_size},
         threads);
}

}  // namespace kvcast

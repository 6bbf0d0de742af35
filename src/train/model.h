// A decoder (method §2, and what other families add) for training: the forward pass on [B, T]
// tokens, and the two variations that KV prediction needs (method §4): caches handed out, and keys
// and values replaced.
#pragma once

#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/layout.h"
#include "train/ops.h"
#include "train/parameters.h"
#include "train/recompute.h"
#include "train/torch.h"

namespace kvcast::train {

/// Keys and values of one layer for all tokens, [B, T, kv_heads, head_dim] each, without RoPE.
struct LayerCache {
  Tensor key_prenorm;  ///< before k_norm; what the predictor reads
  Tensor key;          ///< after k_norm
  Tensor value;
};
using Cache = std::vector<LayerCache>;

/// The first `tokens` positions of every layer; views.
Cache prefix_of(const Cache& cache, int64_t tokens);

/// What attention did in one layer of the exact pass, for matching it with other keys and values.
struct AttentionTrace {
  Tensor query;   ///< [B, T, query_heads, head_dim], after q_norm and RoPE
  Tensor output;  ///< [B, T, model_dim], what out_proj adds to the residual stream
};

struct LayerTensors {
  Tensor qkv_proj;             // [query_width + 2 * kv_width, model_dim]
  Tensor qkv_bias;             // [query_width + 2 * kv_width]; undefined if the model has none
  Tensor q_norm, k_norm;       // [head_dim]; undefined if the model does not normalise
  Tensor out_proj;             // [model_dim, query_width]
  Tensor attn_norm, ffn_norm;  // [model_dim]
  Tensor proj_1;               // [2 * ffn_dim, model_dim]: gate above up
  Tensor proj_2;               // [model_dim, ffn_dim]
};

/// Where the forward pass has each weight of a layer; of those that are stacked, the first.
struct LayerTensor {
  Role role;
  Tensor LayerTensors::*member;
};
inline constexpr LayerTensor kLayerTensors[] = {
    {Role::kQuery, &LayerTensors::qkv_proj},
    {Role::kQueryBias, &LayerTensors::qkv_bias},
    {Role::kQueryNorm, &LayerTensors::q_norm},
    {Role::kKeyNorm, &LayerTensors::k_norm},
    {Role::kAttentionOutput, &LayerTensors::out_proj},
    {Role::kAttentionNorm, &LayerTensors::attn_norm},
    {Role::kFeedForwardNorm, &LayerTensors::ffn_norm},
    {Role::kGate, &LayerTensors::proj_1},
    {Role::kDown, &LayerTensors::proj_2},
};

/// A model's weights for one forward pass, bound to its config. Cheap to copy.
struct Model {
  ModelConfig config;
  RopeTable rope;
  Tensor token_embeddings = {};  // [vocab, model_dim]
  Tensor norm = {};              // [model_dim]
  Tensor lm_head = {};           // [vocab, model_dim]; token_embeddings when tied
  std::vector<LayerTensors> layers = {};
  /// In the backward pass the first so many layers run once more instead of keeping what they made.
  int64_t recompute_layers = 0;
};

/// What the trainer calls a model's weights, whatever its family: OpenELM's names without
/// "transformer.".
extern const StoredForm kTrainedForm;

/// The parameters by those names; initialised as OpenELM does, with the two
/// matrices that write to the residual stream scaled by 1 / sqrt(2 n_layers).
std::vector<ParameterSpec> model_parameter_specs(const ModelConfig& config);

/// Cosines and sines for the model's first `positions` positions.
RopeTable rope_table(const ModelConfig& config, int64_t positions, const at::Device& device);

/// Those of its layers alone: of a model that goes on from another's residual stream.
std::vector<ParameterSpec> layer_parameter_specs(const ModelConfig& config);

/// Picks the model's tensors, named prefix + spec name, out of `tensors`.
Model bind_model(const ModelConfig& config, const RopeTable& rope, const TensorMap& tensors,
                 std::string_view prefix);
/// The same for a model that has nothing but layers.
Model bind_layers(const ModelConfig& config, const RopeTable& rope, const TensorMap& tensors,
                  std::string_view prefix);

/// The plain causal pass over tokens [B, T]: the hidden states after the final norm, [B, T,
/// model_dim]. `cache` and `attention`, if given, receive what every layer made.
Tensor forward(const Model& model, const Tensor& tokens, Cache* cache = nullptr,
               std::vector<AttentionTrace>* attention = nullptr);

/// Only the cache of that pass: the last layer's attention, FFN and the LM head are not computed.
Cache forward_cache(const Model& model, const Tensor& tokens);

/// The pass of method §4: `predicted` replaces the model's own keys and values at every position.
Tensor forward_with_replaced_cache(const Model& model, const Tensor& tokens,
                                   const Cache& predicted);

/// The pass of inference (method §3): tokens [B, S] at positions P.. with their own keys and
/// values, attending to the predicted ones of positions 0..P-1.
Tensor forward_after_prefix(const Model& model, const Tensor& tokens, const Cache& prefix);

/// Rows [B, T, model_dim] that enter the first layer.
Tensor embed(const Model& model, const Tensor& tokens);

/// A run over some of the layers with their own keys and values.
struct LayerRun {
  int64_t first = 0, last = 0;  ///< layers [first, last)
  Cache* cache = nullptr;       ///< receives, if given, what each of them made
  Tensors* entering = nullptr;  ///< likewise the rows that enter each of them, [B, T, model_dim]
};
/// `rows` [B, T, model_dim] enter layer run.first; returns those that leave the last one.
Tensor run_layers(const Model& model, const Tensor& rows, const LayerRun& run);

/// What leaves the last layer, after the final norm.
Tensor final_norm(const Model& model, const Tensor& rows);

/// forward_with_replaced_cache and forward_after_prefix from layer `first` on, which `rows` enter;
/// the caches begin with that layer.
Tensor run_with_replaced_cache(const Model& model, const Tensor& rows, int64_t first,
                               const Cache& predicted);
Tensor run_after_prefix(const Model& model, const Tensor& rows, int64_t first, const Cache& prefix);
/// Both in one, with a prefix of its own for each sequence: positions before own_from [B] have the
/// predicted keys and values, the others the model's own.
Tensor run_with_prefixes(const Model& model, const Tensor& rows, int64_t first,
                         const Cache& predicted, const Tensor& own_from);

/// Keys, with RoPE, and values of one layer for decoding, [B, capacity, kv_heads, head_dim] each.
struct DecodeRows {
  Tensor key, value;
};
using DecodeCache = std::vector<DecodeRows>;
DecodeCache decode_cache(const Model& model, int64_t sequences, int64_t capacity);

/// Tokens [B, T] at positions first...: their rows go into the cache, which holds those of the
/// positions before. Returns the hidden states after the final norm, [B, T, model_dim].
Tensor decode(const Model& model, const Tensor& tokens, int64_t first, DecodeCache& cache);

/// What layer i's attention would add to the residual stream if these queries [B, T, query_heads,
/// head_dim] (a trace's) met the keys and values [B, S, ...] of `cache`; the last query sees all S.
/// Returns [B, T, model_dim].
Tensor attention_output(const Model& model, size_t i, const Tensor& query, const LayerCache& cache);

/// hidden [B, T, model_dim] -> logits [B, T, vocab], f32. Whole: for small batches.
Tensor logits(const Model& model, const Tensor& hidden);

}  // namespace kvcast::train

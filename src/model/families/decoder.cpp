#include "model/families/decoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "model/config_limits.h"
#include "model/families/common.h"
#include "model/families/rope_scaling.h"

namespace kvcast {
namespace {

constexpr TensorName kNames[] = {
    {Role::kEmbeddings, "model.embed_tokens.weight"},
    {Role::kLmHead, "lm_head.weight"},
    {Role::kFinalNorm, "model.norm.weight"},
    {Role::kAttentionNorm, "model.layers.{}.input_layernorm.weight"},
    {Role::kQuery, "model.layers.{}.self_attn.q_proj.weight"},
    {Role::kKey, "model.layers.{}.self_attn.k_proj.weight"},
    {Role::kValue, "model.layers.{}.self_attn.v_proj.weight"},
    {Role::kQueryBias, "model.layers.{}.self_attn.q_proj.bias"},
    {Role::kKeyBias, "model.layers.{}.self_attn.k_proj.bias"},
    {Role::kValueBias, "model.layers.{}.self_attn.v_proj.bias"},
    {Role::kQueryNorm, "model.layers.{}.self_attn.q_norm.weight"},
    {Role::kKeyNorm, "model.layers.{}.self_attn.k_norm.weight"},
    {Role::kAttentionOutput, "model.layers.{}.self_attn.o_proj.weight"},
    {Role::kFeedForwardNorm, "model.layers.{}.post_attention_layernorm.weight"},
    {Role::kGate, "model.layers.{}.mlp.gate_proj.weight"},
    {Role::kUp, "model.layers.{}.mlp.up_proj.weight"},
    {Role::kDown, "model.layers.{}.mlp.down_proj.weight"},
};

constexpr TensorName kGgufNames[] = {
    {Role::kEmbeddings, "token_embd.weight"},
    {Role::kLmHead, "output.weight"},
    {Role::kFinalNorm, "output_norm.weight"},
    {Role::kAttentionNorm, "blk.{}.attn_norm.weight"},
    {Role::kQuery, "blk.{}.attn_q.weight"},
    {Role::kKey, "blk.{}.attn_k.weight"},
    {Role::kValue, "blk.{}.attn_v.weight"},
    {Role::kQueryBias, "blk.{}.attn_q.bias"},
    {Role::kKeyBias, "blk.{}.attn_k.bias"},
    {Role::kValueBias, "blk.{}.attn_v.bias"},
    {Role::kQueryNorm, "blk.{}.attn_q_norm.weight"},
    {Role::kKeyNorm, "blk.{}.attn_k_norm.weight"},
    {Role::kAttentionOutput, "blk.{}.attn_output.weight"},
    {Role::kFeedForwardNorm, "blk.{}.ffn_norm.weight"},
    {Role::kGate, "blk.{}.ffn_gate.weight"},
    {Role::kUp, "blk.{}.ffn_up.weight"},
    {Role::kDown, "blk.{}.ffn_down.weight"},
};

Status read_heads(const JsonFields& fields, LayerConfig& layer, ModelConfig& config) {
  KVCAST_TRY(layer.query_heads, fields.integer("num_attention_heads", 1, kMaxHeads));
  layer.kv_heads = layer.query_heads;
  if (fields.has("num_key_value_heads")) {
    KVCAST_TRY(layer.kv_heads, fields.integer("num_key_value_heads", 1, kMaxHeads));
  }
  if (layer.query_heads % layer.kv_heads != 0) {
    return fields.wrong("num_key_value_heads",
                        fmt::format("a divisor of num_attention_heads ({})", layer.query_heads));
  }
  if (fields.has("head_dim")) {
    KVCAST_TRY(config.head_dim, fields.integer("head_dim", 2, kMaxHeadDim));
    if (config.head_dim % 2 == 0) return {};
    return fields.wrong("head_dim", "an even number (RoPE turns pairs)");
  }
  config.head_dim = config.model_dim / layer.query_heads;
  if (config.model_dim % layer.query_heads == 0 && config.head_dim % 2 == 0 &&
      config.head_dim <= kMaxHeadDim) {
    return {};
  }
  return fields.wrong("hidden_size",
                      fmt::format("num_attention_heads ({}) times an even number up to {}",
                                  layer.query_heads, kMaxHeadDim));
}

}  // namespace

const StoredForm kDecoderCheckpoint = {.names = kNames};
const StoredForm kDecoderGguf = {.names = kGgufNames};
const StoredForm kLlamaGguf = {.names = kGgufNames, .interleaved_heads = true};

Result<ModelConfig> read_decoder(const JsonFields& fields) {
  KVCAST_CHECK(fields.require("hidden_act", "silu"));
  ModelConfig config;
  KVCAST_TRY(config.vocab_size, fields.integer("vocab_size", 1, kMaxVocab));
  KVCAST_TRY(config.model_dim, fields.integer("hidden_size", 1, kMaxModelDim));
  KVCAST_TRY(config.max_context_tokens, fields.integer("max_position_embeddings", 1, kMaxContext));
  KVCAST_TRY(const double eps, fields.number("rms_norm_eps", 0.0, 1.0));
  config.norm_eps = static_cast<float>(eps);
  config.tied_embeddings = false;
  if (fields.has("tie_word_embeddings")) {
    KVCAST_TRY(config.tied_embeddings, fields.boolean("tie_word_embeddings"));
  }
  config.normalize_qk = false;
  config.bos_token = -1;
  config.eos_tokens.clear();
  KVCAST_CHECK(read_special_tokens(fields, config));
  LayerConfig layer;
  KVCAST_CHECK(read_heads(fields, layer, config));
  KVCAST_TRY(config.rope, read_rope(fields, config.head_dim));
  KVCAST_TRY(layer.ffn_dim, fields.integer("intermediate_size", 1, kMaxFfnDim));
  KVCAST_TRY(const int64_t n_layers, fields.integer("num_hidden_layers", 1, kMaxLayers));
  config.layers.assign(static_cast<size_t>(n_layers), layer);
  return config;
}

Status limit_context_to_window(const JsonFields& fields, ModelConfig& config) {
  if (!fields.has("sliding_window")) return {};
  KVCAST_TRY(const int64_t window, fields.integer("sliding_window", 1, INT64_MAX));
  config.max_context_tokens = std::min(config.max_context_tokens, window);
  return {};
}

Status limit_context_to_used_window(const JsonFields& fields, ModelConfig& config) {
  if (!fields.has("use_sliding_window")) return {};
  KVCAST_TRY(const bool used, fields.boolean("use_sliding_window"));
  return used ? limit_context_to_window(fields, config) : Status();
}

Json write_decoder(const ModelConfig& config) {
  const LayerConfig& layer = config.layers.front();
  Json json = {
      {"hidden_act", "silu"},
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.model_dim},
      {"intermediate_size", layer.ffn_dim},
      {"num_hidden_layers", config.n_layers()},
      {"num_attention_heads", layer.query_heads},
      {"num_key_value_heads", layer.kv_heads},
      {"head_dim", config.head_dim},
      {"max_position_embeddings", config.max_context_tokens},
      {"rms_norm_eps", config.norm_eps},
      {"tie_word_embeddings", config.tied_embeddings},
      {"bos_token_id", config.bos_token < 0 ? Json() : Json(config.bos_token)},
      {"eos_token_id", end_tokens_json(config)},
      {"initializer_range", 0.02},
      {"use_cache", true},
  };
  write_rope(config, json);
  return json;
}

}  // namespace kvcast

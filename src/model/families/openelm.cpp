// OpenELM: Mehta et al. 2024 (arXiv 2404.14619); key names as in apple/OpenELM-* checkpoints.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/macros.h"
#include "model/architectures.h"
#include "model/config_limits.h"
#include "model/families/common.h"
#include "model/family.h"

namespace kvcast {
namespace {

Status read_sizes(const JsonFields& fields, ModelConfig& config) {
  KVCAST_TRY(config.vocab_size, fields.integer("vocab_size", 1, kMaxVocab));
  KVCAST_TRY(config.model_dim, fields.integer("model_dim", 1, kMaxModelDim));
  KVCAST_TRY(config.head_dim, fields.integer("head_dim", 2, kMaxHeadDim));
  if (config.head_dim % 2 != 0) {
    return fields.wrong("head_dim", "an even number (RoPE turns pairs)");
  }
  KVCAST_TRY(config.max_context_tokens, fields.integer("max_context_length", 1, kMaxContext));
  if (fields.contains("rope_max_length")) {
    KVCAST_CHECK(
        fields.integer("rope_max_length", config.max_context_tokens, INT64_MAX).map([](auto) {}));
  }
  return {};
}

Status read_layers(const JsonFields& fields, ModelConfig& config) {
  KVCAST_TRY(const int64_t n_layers, fields.integer("num_transformer_layers", 1, kMaxLayers));
  KVCAST_TRY(const int64_t divisor, fields.integer("ffn_dim_divisor", 1, kMaxFfnDim));
  KVCAST_TRY(const auto query_heads, fields.integers("num_query_heads", n_layers, 1, kMaxHeads));
  KVCAST_TRY(const auto kv_heads, fields.integers("num_kv_heads", n_layers, 1, kMaxHeads));
  KVCAST_TRY(const auto multipliers, fields.numbers("ffn_multipliers", n_layers, 1e-6, 1e6));
  for (int64_t i = 0; i < n_layers; ++i) {
    if (query_heads[i] % kv_heads[i] != 0) {
      return fields.wrong("num_kv_heads",
                          fmt::format("entry {} ({}) to divide num_query_heads entry {} ({})", i,
                                      kv_heads[i], i, query_heads[i]));
    }
    const int64_t ffn_dim =
        make_divisible(multipliers[i] * static_cast<double>(config.model_dim), divisor);
    if (ffn_dim > kMaxFfnDim) {
      return fields.wrong("ffn_multipliers",
                          fmt::format("entry {} to give an FFN width of at most {}, not {}", i,
                                      kMaxFfnDim, ffn_dim));
    }
    config.layers.push_back({query_heads[i], kv_heads[i], ffn_dim});
  }
  return {};
}

// What the forward pass is written for; anything else would run and give nonsense.
Status require_openelm(const JsonFields& fields) {
  KVCAST_CHECK(fields.require("activation_fn_name", "swish"));
  KVCAST_CHECK(fields.require("normalization_layer_name", "rms_norm"));
  return fields.require("ffn_with_glu", true);
}

// Multipliers and divisor from which make_divisible gives back every FFN width: the published
// list where it fits, else two decimals, else the exact ratio.
std::vector<double> ffn_multipliers(const ModelConfig& config, int64_t divisor) {
  const auto published = scaling_multipliers(0.5, 4.0, config.n_layers());
  const auto model_dim = static_cast<double>(config.model_dim);
  const auto fits = [&](double multiplier, int64_t i) {
    return make_divisible(multiplier * model_dim, divisor) == config.layers[i].ffn_dim;
  };
  std::vector<double> multipliers;
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    const double exact = static_cast<double>(config.layers[i].ffn_dim) / model_dim;
    const double rounded = std::nearbyint(exact * 100.0) / 100.0;
    multipliers.push_back(fits(published[i], i) ? published[i]
                          : fits(rounded, i)    ? rounded
                                                : exact);
  }
  return multipliers;
}

// Hugging Face's OpenELM code derives the heads from two end points; a pruned model has no such
// two, so it gets one ratio per layer, which that code refuses instead of building a wrong shape.
std::vector<double> qkv_multipliers(const ModelConfig& config, int64_t gqa_groups) {
  const auto scaled = scaling_multipliers(0.5, 1.0, config.n_layers());
  std::vector<double> ratios;
  bool is_scaled = true;
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    const auto model_dim = static_cast<double>(config.model_dim);
    ratios.push_back(static_cast<double>(config.query_width(i)) / model_dim);
    is_scaled &= make_divisible(scaled[i] * model_dim, config.head_dim * gqa_groups) ==
                     config.query_width(i) &&
                 config.layers[i].kv_heads * gqa_groups == config.layers[i].query_heads;
  }
  return is_scaled ? std::vector<double>{0.5, 1.0} : ratios;
}

Result<ModelConfig> read(const JsonFields& fields) {
  KVCAST_CHECK(require_openelm(fields));
  ModelConfig config;
  config.family = kOpenElm.name;
  KVCAST_CHECK(read_sizes(fields, config));
  KVCAST_TRY(config.normalize_qk, fields.boolean("normalize_qk_projections"));
  KVCAST_TRY(config.tied_embeddings, fields.boolean("share_input_output_layers"));
  KVCAST_TRY(const double theta, fields.number("rope_freq_constant", 1.0, 1e12));
  config.rope.theta = static_cast<float>(theta);
  KVCAST_CHECK(read_special_tokens(fields, config));
  KVCAST_CHECK(read_layers(fields, config));
  return config;
}

Json write(const ModelConfig& config) {
  int64_t ffn_divisor = 256;
  int64_t gqa_groups = 0;
  Json query_heads = Json::array();
  Json kv_heads = Json::array();
  for (const LayerConfig& layer : config.layers) {
    ffn_divisor = std::gcd(ffn_divisor, layer.ffn_dim);
    gqa_groups = std::max(gqa_groups, layer.query_heads / layer.kv_heads);
    query_heads.push_back(layer.query_heads);
    kv_heads.push_back(layer.kv_heads);
  }
  return {
      {"model_type", "openelm"},
      {"architectures", {"OpenELMForCausalLM"}},
      {"activation_fn_name", "swish"},
      {"normalization_layer_name", "rms_norm"},
      {"ffn_with_glu", true},
      {"vocab_size", config.vocab_size},
      {"model_dim", config.model_dim},
      {"head_dim", config.head_dim},
      {"max_context_length", config.max_context_tokens},
      {"rope_max_length", 2 * config.max_context_tokens},
      {"rope_freq_constant", config.rope.theta},
      {"normalize_qk_projections", config.normalize_qk},
      {"share_input_output_layers", config.tied_embeddings},
      {"bos_token_id", config.bos_token},
      {"eos_token_id", end_tokens_json(config)},
      {"initializer_range", 0.02},
      {"use_cache", true},
      {"num_transformer_layers", config.n_layers()},
      {"num_gqa_groups", gqa_groups},
      {"num_query_heads", query_heads},
      {"num_kv_heads", kv_heads},
      {"qkv_multipliers", qkv_multipliers(config, gqa_groups)},
      {"ffn_multipliers", ffn_multipliers(config, ffn_divisor)},
      {"ffn_dim_divisor", ffn_divisor},
  };
}

// qkv_proj holds all query rows, then the keys', then the values'; proj_1 gate above up (method
// §2).
constexpr TensorName kNames[] = {
    {Role::kEmbeddings, "transformer.token_embeddings.weight"},
    {Role::kLmHead, "lm_head.weight"},
    {Role::kFinalNorm, "transformer.norm.weight"},
    {Role::kAttentionNorm, "transformer.layers.{}.attn_norm.weight"},
    {Role::kQuery, "transformer.layers.{}.attn.qkv_proj.weight"},
    {Role::kKey, "transformer.layers.{}.attn.qkv_proj.weight"},
    {Role::kValue, "transformer.layers.{}.attn.qkv_proj.weight"},
    {Role::kQueryNorm, "transformer.layers.{}.attn.q_norm.weight"},
    {Role::kKeyNorm, "transformer.layers.{}.attn.k_norm.weight"},
    {Role::kAttentionOutput, "transformer.layers.{}.attn.out_proj.weight"},
    {Role::kFeedForwardNorm, "transformer.layers.{}.ffn_norm.weight"},
    {Role::kGate, "transformer.layers.{}.ffn.proj_1.weight"},
    {Role::kUp, "transformer.layers.{}.ffn.proj_1.weight"},
    {Role::kDown, "transformer.layers.{}.ffn.proj_2.weight"},
};
constexpr std::string_view kModelTypes[] = {"openelm"};

}  // namespace

const ModelFamily kOpenElm = {.name = "openelm",
                              .model_types = kModelTypes,
                              .read = read,
                              .write = write,
                              .checkpoint = {.names = kNames}};

}  // namespace kvcast

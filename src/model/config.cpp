#include "model/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/macros.h"
#include "io/json.h"
#include "model/architectures.h"
#include "model/json_fields.h"

namespace kvcast {
namespace {

// Far above any model that exists, low enough that no product of two or three of them overflows
// and no table sized by them (RoPE: context * head_dim) is absurd.
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxModelDim = 1 << 17;
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxHeads = 2048;
constexpr int64_t kMaxFfnDim = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxContext = 1 << 20;

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
  KVCAST_CHECK(fields.require("model_type", "openelm"));
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

}  // namespace

int64_t ModelConfig::parameter_count() const {
  int64_t count = vocab_size * model_dim * (tied_embeddings ? 1 : 2) + model_dim;
  for (int64_t i = 0; i < n_layers(); ++i) {
    const int64_t qkv_and_out = (2 * query_width(i) + 2 * kv_width(i)) * model_dim;
    const int64_t ffn = 3 * layers[i].ffn_dim * model_dim;
    const int64_t norms = 2 * model_dim + (normalize_qk ? 2 * head_dim : 0);
    count += qkv_and_out + ffn + norms;
  }
  return count;
}

Result<ModelConfig> read_model_config(const std::filesystem::path& directory) {
  const auto path = directory / "config.json";
  KVCAST_TRY(const Json json, read_json_object(path));
  const JsonFields fields(json, path.string());
  KVCAST_CHECK(require_openelm(fields));
  ModelConfig config;
  KVCAST_CHECK(read_sizes(fields, config));
  KVCAST_TRY(config.normalize_qk, fields.boolean("normalize_qk_projections"));
  KVCAST_TRY(config.tied_embeddings, fields.boolean("share_input_output_layers"));
  KVCAST_TRY(const double theta, fields.number("rope_freq_constant", 1.0, 1e12));
  config.rope_theta = static_cast<float>(theta);
  if (fields.contains("bos_token_id")) {
    KVCAST_TRY(config.bos_token, fields.integer("bos_token_id", 0, config.vocab_size - 1));
  }
  if (fields.contains("eos_token_id")) {
    KVCAST_TRY(config.eos_token, fields.integer("eos_token_id", 0, config.vocab_size - 1));
  }
  KVCAST_CHECK(read_layers(fields, config));
  return config;
}

std::string to_config_json(const ModelConfig& config) {
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
  const Json json = {
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
      {"rope_freq_constant", config.rope_theta},
      {"normalize_qk_projections", config.normalize_qk},
      {"share_input_output_layers", config.tied_embeddings},
      {"bos_token_id", config.bos_token},
      {"eos_token_id", config.eos_token},
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
  return json.dump(1) + "\n";
}

std::string layer_tensor_name(int64_t layer, std::string_view suffix) {
  return fmt::format("transformer.layers.{}.{}", layer, suffix);
}

}  // namespace kvcast

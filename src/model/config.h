// The shape of a model, whatever its family (family.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"

namespace kvcast {

/// One decoder layer; widths differ from layer to layer (layer-wise scaling).
struct LayerConfig {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t ffn_dim = 0;  ///< width of gate and of up, each

  bool operator==(const LayerConfig&) const = default;
};

/// Rotary position embeddings: pair j of a head turns by theta^(-2j / head_dim) / factors[j] a
/// position.
struct Rope {
  float theta = 10000.0F;
  /// [head_dim / 2], what stretches a model's context beyond that of its first training; empty: 1.
  std::vector<float> factors;

  /// [head_dim / 2]
  [[nodiscard]] std::vector<double> frequencies(int64_t head_dim) const;
  bool operator==(const Rope&) const = default;
};

struct ModelConfig {
  std::string_view family = "openelm";  ///< ModelFamily::name
  int64_t vocab_size = 0;
  int64_t unused_tokens = 0;  ///< that files have embeddings for beyond vocab_size
  int64_t model_dim = 0;
  int64_t head_dim = 0;
  int64_t max_context_tokens = 0;
  bool normalize_qk = true;     ///< RMSNorm on each head's queries and keys before RoPE
  bool tied_embeddings = true;  ///< the LM head is the embedding matrix
  bool qkv_bias = false;        ///< queries, keys and values have a bias each
  Rope rope;
  float norm_eps = 1e-6F;
  int64_t bos_token = 1;                  ///< -1: none
  std::vector<int64_t> eos_tokens = {2};  ///< each of them ends an answer
  std::vector<LayerConfig> layers;

  [[nodiscard]] int64_t n_layers() const { return static_cast<int64_t>(layers.size()); }
  [[nodiscard]] int64_t query_width(int64_t layer) const {
    return layers[layer].query_heads * head_dim;
  }
  /// Keys of one token in one layer, heads concatenated (values have the same width).
  [[nodiscard]] int64_t kv_width(int64_t layer) const { return layers[layer].kv_heads * head_dim; }
  /// Leaves only the first `count` tokens: others than these are padding.
  void use_tokens(int64_t count);
  [[nodiscard]] bool ends_text(int64_t token) const {
    return std::ranges::find(eos_tokens, token) != eos_tokens.end();
  }
  /// Stored parameters; a tied embedding counts once.
  [[nodiscard]] int64_t parameter_count() const;
  bool operator==(const ModelConfig&) const = default;
};

/// Of a model directory or a GGUF file. Errors name the file, the key and what was expected.
Result<ModelConfig> read_model_config(const std::filesystem::path& model);

/// config.json text that read_model_config and Hugging Face's code both accept.
std::string to_config_json(const ModelConfig& config);

}  // namespace kvcast

// The shape of a model, read from a Hugging Face OpenELM config.json.
// OpenELM: Mehta et al. 2024 (arXiv 2404.14619); key names as in apple/OpenELM-* checkpoints.
#pragma once

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
};

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t model_dim = 0;
  int64_t head_dim = 0;
  int64_t max_context_tokens = 0;
  bool normalize_qk = true;     ///< RMSNorm on each head's queries and keys before RoPE
  bool tied_embeddings = true;  ///< the LM head is the embedding matrix
  float rope_theta = 10000.0F;
  float norm_eps = 1e-6F;
  int64_t bos_token = 1;
  int64_t eos_token = 2;
  std::vector<LayerConfig> layers;

  [[nodiscard]] int64_t n_layers() const { return static_cast<int64_t>(layers.size()); }
  [[nodiscard]] int64_t query_width(int64_t layer) const {
    return layers[layer].query_heads * head_dim;
  }
  /// Keys of one token in one layer, heads concatenated (values have the same width).
  [[nodiscard]] int64_t kv_width(int64_t layer) const { return layers[layer].kv_heads * head_dim; }
  /// Stored parameters; a tied embedding counts once.
  [[nodiscard]] int64_t parameter_count() const;
};

/// Reads `directory`/config.json. Errors name the file, the key and what was expected.
Result<ModelConfig> read_model_config(const std::filesystem::path& directory);

/// config.json text that read_model_config and Hugging Face's OpenELM code both accept.
std::string to_config_json(const ModelConfig& config);

/// OpenELM's layer-wise scaling (method §2): qkv multipliers 0.5..1, ffn multipliers 0.5..4 over
/// `n_layers`; query heads come in groups of `gqa_groups` per KV head.
struct OpenElmShape {
  int64_t n_layers = 16;
  int64_t model_dim = 1280;
  int64_t head_dim = 64;
  int64_t gqa_groups = 4;
  int64_t ffn_dim_divisor = 256;
  int64_t vocab_size = 32000;
  int64_t max_context_tokens = 2048;
};
ModelConfig make_openelm_config(const OpenElmShape& shape);

/// "openelm-270m", "openelm-450m", "openelm-1.1b", "openelm-3b", and layer-pruned forms such as
/// "openelm-1.1b-lp-0.50" (method §2). Unknown names are an error that lists the known ones.
Result<ModelConfig> named_architecture(std::string_view name);

/// Which layers of the base a layer-pruned auxiliary keeps: 0.75 drops i mod 4 == 3, 0.50 keeps the
/// even ones, 0.25 keeps i mod 4 == 0 (method §2).
Result<std::vector<int64_t>> layer_pruned_kept_layers(int64_t n_layers, std::string_view fraction);

/// The base config with only `kept` layers.
ModelConfig prune_layers(const ModelConfig& base, const std::vector<int64_t>& kept);

/// Layer maps by the rules of method §5. Entry i is the auxiliary layer that base layer i reads.
std::vector<int64_t> canonical_layer_map(int64_t base_layers, int64_t auxiliary_layers);
std::vector<int64_t> layer_pruned_layer_map(int64_t base_layers, const std::vector<int64_t>& kept);

/// Hugging Face tensor names of a layer, e.g. tensor_name(3, "attn.qkv_proj.weight").
std::string layer_tensor_name(int64_t layer, std::string_view suffix);
inline constexpr std::string_view kEmbeddingsTensor = "transformer.token_embeddings.weight";
inline constexpr std::string_view kFinalNormTensor = "transformer.norm.weight";
inline constexpr std::string_view kLmHeadTensor = "lm_head.weight";

}  // namespace kvcast

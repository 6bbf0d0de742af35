// Qwen3: Llama's layers with a norm on each head's queries and keys.
// Yang et al. 2025 (arXiv 2505.09388); key names as in Hugging Face's Qwen3Config.
#include "base/macros.h"
#include "model/families/decoder.h"
#include "model/family.h"

namespace kvcast {
namespace {

Result<ModelConfig> read(const JsonFields& fields) {
  if (fields.has("attention_bias")) KVCAST_CHECK(fields.require("attention_bias", false));
  if (!fields.has("head_dim")) return fields.wrong("head_dim", "the width of a head");
  KVCAST_TRY(ModelConfig config, read_decoder(fields));
  config.family = kQwen3.name;
  config.normalize_qk = true;
  KVCAST_CHECK(limit_context_to_used_window(fields, config));
  return config;
}

Json write(const ModelConfig& config) {
  Json json = write_decoder(config);
  json["model_type"] = "qwen3";
  json["architectures"] = {"Qwen3ForCausalLM"};
  return json;
}

constexpr std::string_view kModelTypes[] = {"qwen3"};

}  // namespace

const ModelFamily kQwen3 = {.name = "qwen3",
                            .model_types = kModelTypes,
                            .read = read,
                            .write = write,
                            .checkpoint = kDecoderCheckpoint,
                            .gguf_architecture = "qwen3",
                            .gguf = kDecoderGguf};

}  // namespace kvcast

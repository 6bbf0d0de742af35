// Qwen2 and Qwen2.5: Llama's layers with biases on queries, keys and values.
// Yang et al. 2024 (arXiv 2407.10671); key names as in Hugging Face's Qwen2Config.
#include "base/macros.h"
#include "model/families/decoder.h"
#include "model/family.h"

namespace kvcast {
namespace {

Result<ModelConfig> read(const JsonFields& fields) {
  KVCAST_TRY(ModelConfig config, read_decoder(fields));
  config.family = kQwen2.name;
  config.qkv_bias = true;
  KVCAST_CHECK(limit_context_to_used_window(fields, config));
  return config;
}

Json write(const ModelConfig& config) {
  Json json = write_decoder(config);
  json["model_type"] = "qwen2";
  json["architectures"] = {"Qwen2ForCausalLM"};
  return json;
}

constexpr std::string_view kModelTypes[] = {"qwen2"};

}  // namespace

const ModelFamily kQwen2 = {.name = "qwen2",
                            .model_types = kModelTypes,
                            .read = read,
                            .write = write,
                            .checkpoint = kDecoderCheckpoint,
                            .gguf_architecture = "qwen2",
                            .gguf = kDecoderGguf};

}  // namespace kvcast

// Llama 2 and 3, and what has its layers: SmolLM2, Mistral.
// Touvron et al. 2023 (arXiv 2307.09288); key names as in Hugging Face's LlamaConfig.
#include "base/macros.h"
#include "model/families/decoder.h"
#include "model/family.h"

namespace kvcast {
namespace {

Result<ModelConfig> read(const JsonFields& fields) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (fields.has(key)) KVCAST_CHECK(fields.require(key, false));
  }
  KVCAST_TRY(ModelConfig config, read_decoder(fields));
  config.family = kLlama.name;
  KVCAST_CHECK(limit_context_to_window(fields, config));
  return config;
}

Json write(const ModelConfig& config) {
  Json json = write_decoder(config);
  json["model_type"] = "llama";
  json["architectures"] = {"LlamaForCausalLM"};
  return json;
}

constexpr std::string_view kModelTypes[] = {"llama", "mistral"};

}  // namespace

const ModelFamily kLlama = {.name = "llama",
                            .model_types = kModelTypes,
                            .read = read,
                            .write = write,
                            .checkpoint = kDecoderCheckpoint,
                            .gguf_architecture = "llama",
                            .gguf = kLlamaGguf};

}  // namespace kvcast

// A GGUF file's metadata as the config.json that Hugging Face would have for the same model, so
// that families read one kind of config.
#pragma once

#include "io/gguf.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/family.h"

namespace kvcast {

struct GgufModel {
  const ModelFamily* family;
  ModelConfig config;
};
/// Errors name the file and its own keys.
Result<GgufModel> read_gguf_model(const Gguf& file);

}  // namespace kvcast

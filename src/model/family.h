// The families of models that kvcast runs: one file each in families/.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "io/json.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/json_fields.h"
#include "model/layout.h"

namespace kvcast {

struct ModelFamily {
  std::string_view name;
  /// What config.json's model_type says.
  std::span<const std::string_view> model_types;
  /// From the keys of a Hugging Face config.json. What the forward pass does not compute is
  /// refused.
  Result<ModelConfig> (*read)(const JsonFields& fields);
  /// A config.json that `read` and Hugging Face's code accept.
  Json (*write)(const ModelConfig& config);
  /// The tensors of a Hugging Face checkpoint.
  StoredForm checkpoint;
  /// What a GGUF file's general.architecture says, and its tensors; empty: not read from GGUF.
  std::string_view gguf_architecture = {};
  StoredForm gguf = {};
};

extern const ModelFamily kOpenElm, kLlama, kQwen2, kQwen3;

/// The family of a config.json, or an error that names what is supported.
Result<const ModelFamily*> find_family(const JsonFields& fields);
/// The same for a GGUF file's architecture; `where` names the file.
Result<const ModelFamily*> find_gguf_family(std::string_view architecture,
                                            const std::string& where);
/// The family that made `config`.
const ModelFamily& family_of(const ModelConfig& config);

}  // namespace kvcast

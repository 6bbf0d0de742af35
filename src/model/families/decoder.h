// The decoder that Llama made common, whose config keys and tensor names other families share.
#pragma once

#include "io/json.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/json_fields.h"
#include "model/layout.h"

namespace kvcast {

/// Everything but what a family's own reader adds: family, qkv_bias, normalize_qk, the context that
/// a sliding window leaves.
Result<ModelConfig> read_decoder(const JsonFields& fields);
/// The keys that read_decoder reads; a family adds model_type and its own.
Json write_decoder(const ModelConfig& config);

/// Attention beyond `sliding_window` tokens is not computed, so the context ends there.
Status limit_context_to_window(const JsonFields& fields, ModelConfig& config);
/// The same if `use_sliding_window` says that there is one.
Status limit_context_to_used_window(const JsonFields& fields, ModelConfig& config);

/// Names of all roles, those that only some families have included.
extern const StoredForm kDecoderCheckpoint;
/// In GGUF files; Llama's have interleaved heads.
extern const StoredForm kDecoderGguf, kLlamaGguf;

}  // namespace kvcast

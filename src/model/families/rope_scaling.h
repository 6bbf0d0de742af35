// Rotary position embeddings in a Hugging Face config.json.
#pragma once

#include "io/json.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/json_fields.h"

namespace kvcast {

/// rope_theta and rope_scaling, or rope_parameters, which newer configs have for both. Of the ways
/// to scale: none, "linear", "llama3", and "longrope" with the same factors for every length.
Result<Rope> read_rope(const JsonFields& fields, int64_t head_dim);
/// Factors are written as "longrope", which says them all.
void write_rope(const ModelConfig& config, Json& json);

}  // namespace kvcast

// What the readers of several families share.
#pragma once

#include "io/json.h"
#include "kvcast/result.h"
#include "model/config.h"
#include "model/json_fields.h"

namespace kvcast {

/// bos_token_id and eos_token_id, which may be one token, a list, null or missing.
Status read_special_tokens(const JsonFields& fields, ModelConfig& config);
/// The same for eos_token_id of a generation_config.json, which goes before config.json's.
Status read_end_tokens(const JsonFields& fields, ModelConfig& config);
/// eos_token_id as read_end_tokens reads it.
Json end_tokens_json(const ModelConfig& config);

}  // namespace kvcast

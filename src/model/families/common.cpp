#include "model/families/common.h"

#include "base/macros.h"

namespace kvcast {

Status read_end_tokens(const JsonFields& fields, ModelConfig& config) {
  constexpr const char* kKey = "eos_token_id";
  constexpr int64_t kMostTokens = 64;
  if (!fields.contains(kKey)) return {};
  if (!fields.has(kKey)) {  // null: nothing ends an answer
    config.eos_tokens.clear();
    return {};
  }
  if (fields.is_list(kKey)) {
    KVCAST_TRY(config.eos_tokens,
               fields.integers_up_to(kKey, kMostTokens, 0, config.vocab_size - 1));
    return {};
  }
  KVCAST_TRY(const int64_t token, fields.integer(kKey, 0, config.vocab_size - 1));
  config.eos_tokens = {token};
  return {};
}

Status read_special_tokens(const JsonFields& fields, ModelConfig& config) {
  if (fields.has("bos_token_id")) {
    KVCAST_TRY(config.bos_token, fields.integer("bos_token_id", 0, config.vocab_size - 1));
  }
  return read_end_tokens(fields, config);
}

Json end_tokens_json(const ModelConfig& config) {
  if (config.eos_tokens.empty()) return nullptr;
  if (config.eos_tokens.size() == 1) return config.eos_tokens.front();
  return config.eos_tokens;
}

}  // namespace kvcast

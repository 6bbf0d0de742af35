// The JSON edge of the server: request bodies become these structs; nothing behind sees JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kvcast/sampling.h"
#include "runtime/chat_template.h"
#include "server/api_error.h"

namespace kvcast {

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

/// Text, or token ids that are used as they are.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

/// What /v1/completions and /v1/chat/completions share.
struct GenerationFields {
  std::string model;
  std::string prefill;  ///< empty: the server's default
  std::optional<int64_t> max_tokens;
  int64_t n = 1;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignore_end_of_text = false;
  bool stream = false;
  bool include_usage = false;       ///< stream_options.include_usage
  bool cache_prompt = true;         ///< false: neither take from nor leave to other requests
  bool revise = false;              ///< take back what exact would not have chosen
  bool return_progress = false;     ///< prompt_progress while the prompt is read
  std::optional<int64_t> logprobs;  ///< alternatives per token
};

struct CompletionRequest {
  GenerationFields fields;
  std::vector<PromptInput> prompts;
  bool echo = false;
  std::optional<int64_t> context_length;
};

struct ChatRequest {
  GenerationFields fields;
  std::vector<ChatMessage> messages;
};

struct TokenizeRequest {
  std::variant<std::string, std::vector<ChatMessage>> input;
  bool add_special_tokens = true;
  bool return_token_strings = false;
};

struct RequestLimits {
  int64_t max_prompts = 64;
  int64_t max_choices = 64;
  int64_t max_stop_strings = 16;
  int64_t max_stop_bytes = 1024;
  int64_t max_messages = 1024;
  int64_t max_logprobs = 20;
};

/// Errors are ApiErrors of status 400 that name the field. Unknown fields are ignored, as OpenAI's
/// clients expect; fields that would change the answer and are not supported are refused.
ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const RequestLimits& limits);
ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);
ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const RequestLimits& limits);
ApiResult<std::vector<int32_t>> parse_detokenize_request(std::string_view body);

}  // namespace kvcast

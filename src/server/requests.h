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
#include "runtime/token_rules.h"
#include "server/api_error.h"

namespace kvcast {

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

/// Text, or token ids that are used as they are.
using PromptInput = std::variant<std::string, std::vector<int32_t>>;

/// What /v1/completions and /v1/chat/completions share.
struct GenerationFields {
  std::string model;
  std::string prefill;                ///< empty: the server's default
  std::optional<int64_t> max_tokens;  ///< kAsManyTokensAsFit: no other limit than the context
  int64_t n = 1;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignore_end_of_text = false;
  TokenRules tokens;                   ///< but for the banned sequences, which need a tokenizer
  std::vector<std::string> bad_words;  ///< that no answer holds
  bool stream = false;
  bool include_usage = false;       ///< stream_options.include_usage
  bool cache_prompt = true;         ///< false: neither take from nor leave to other requests
  bool revise = false;              ///< take back what exact would not have chosen
  std::optional<int64_t> drafts;    ///< GenerateOptions::drafts; none: the server's default
  bool return_progress = false;     ///< prompt_progress while the prompt is read
  std::optional<int64_t> logprobs;  ///< alternatives per token
};

/// max_tokens: up to the end of the context.
inline constexpr int64_t kAsManyTokensAsFit = -1;

struct CompletionRequest {
  GenerationFields fields;
  std::vector<PromptInput> prompts;
  std::string suffix;  ///< fill in between the prompt and this; empty: go on from the prompt
  bool echo = false;
  std::optional<int64_t> context_length;
};

/// What an answer may call.
struct ToolFields {
  std::string json;  ///< for the template: the text of a list of tools, nested; empty: none
  std::string asked = "[]", choice = "\"auto\"";  ///< as the request has them, as JSON text
  std::vector<std::string> names;                 ///< that calls may name
  bool must_call = false;                         ///< the answer begins with a call
  bool parallel = true;                           ///< more than one call is fine
};

struct ChatRequest {
  GenerationFields fields;
  std::vector<ChatMessage> messages;
  ToolFields tools;
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
  int64_t max_bad_words = 256;
  int64_t max_messages = 1024;
  int64_t max_tools = 128;
  int64_t max_logprobs = 20;
};

/// Errors are ApiErrors of status 400 that name the field. Unknown fields are ignored, as OpenAI's
/// clients expect; fields that would change the answer and are not supported are refused.
ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const RequestLimits& limits);
ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);
/// POST /v1/responses: text and calls of functions, in and out.
ApiResult<ChatRequest> parse_responses_request(std::string_view body, const RequestLimits& limits);
ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const RequestLimits& limits);
ApiResult<std::vector<int32_t>> parse_detokenize_request(std::string_view body);

}  // namespace kvcast

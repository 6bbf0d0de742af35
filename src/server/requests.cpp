#include "server/requests.h"

#include <fmt/format.h>

#include <limits>
#include <random>

#include "io/json.h"
#include "server/json_object.h"

namespace kvcast {
namespace {

constexpr int64_t kMostTokens = 1 << 30;  // far beyond any context; keeps sums in range

ApiResult<Json> parse_object(std::string_view body) {
  auto json = parse_json(body, "request body");
  if (!json) return tl::unexpected(bad_request(std::move(json.error().message)));
  if (!json->is_object())
    return tl::unexpected(bad_request("request body: expected a JSON object"));
  return std::move(*json);
}

void read_stop(JsonObject& object, const RequestLimits& limits, std::vector<std::string>& stop) {
  const Json* value = object.find("stop");
  if (!value) return;
  const auto refuse = [&] {
    object.refuse("stop", fmt::format("a string or at most {} strings of 1..{} bytes",
                                      limits.max_stop_strings, limits.max_stop_bytes));
  };
  const Json list = value->is_array() ? *value : Json::array({*value});
  if (static_cast<int64_t>(list.size()) > limits.max_stop_strings) return refuse();
  for (const Json& item : list) {
    if (!item.is_string()) return refuse();
    const auto& text = item.get_ref<const std::string&>();
    // lm-eval sends the name of the end-of-text token, which may be empty, as a stop string.
    if (text.empty()) continue;
    if (static_cast<int64_t>(text.size()) > limits.max_stop_bytes) return refuse();
    stop.push_back(text);
  }
}

void read_sampling(JsonObject& object, SamplingOptions& sampling) {
  constexpr double kHuge = 1e6;
  sampling.temperature = static_cast<float>(object.number("temperature", 0, kHuge).value_or(1.0));
  sampling.top_p = static_cast<float>(
      object.number("top_p", std::numeric_limits<float>::min(), 1).value_or(1.0));
  // -1 is how vLLM's clients say "off".
  sampling.top_k =
      std::max<int64_t>(object.clamped_integer("top_k", -1, kMostTokens).value_or(0), 0);
  sampling.min_p = static_cast<float>(object.number("min_p", 0, 1).value_or(0.0));
  sampling.repetition_penalty =
      static_cast<float>(object.number("repetition_penalty", 1e-3, kHuge).value_or(1.0));
  const auto seed = object.integer("seed", std::numeric_limits<int64_t>::min(),
                                   std::numeric_limits<int64_t>::max());
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : std::random_device{}();
}

void refuse_unsupported(JsonObject& object) {
  for (const auto* field : {"presence_penalty", "frequency_penalty"}) {
    object.unsupported(field, {0, 0.0});
  }
  object.unsupported("logit_bias", {Json::object()});
  object.unsupported("suffix", {""});
  object.unsupported("tools", {Json::array()});
  object.unsupported("functions", {Json::array()});
  object.unsupported("response_format", {Json{{"type", "text"}}});
  object.unsupported("modalities", {Json::array({"text"})});
}

GenerationFields read_generation(JsonObject& object, const RequestLimits& limits) {
  GenerationFields fields;
  fields.model = object.text("model").value_or("");
  fields.prefill = object.text("prefill").value_or("");
  fields.max_tokens = object.clamped_integer("max_tokens", 0, kMostTokens);
  fields.n = object.integer("n", 1, limits.max_choices).value_or(1);
  read_sampling(object, fields.sampling);
  read_stop(object, limits, fields.stop);
  fields.ignore_end_of_text = object.boolean("ignore_eos").value_or(false);
  fields.stream = object.boolean("stream").value_or(false);
  fields.revise = object.boolean("revise").value_or(false);
  fields.cache_prompt = object.boolean("cache_prompt").value_or(true);
  fields.return_progress = object.boolean("return_progress").value_or(false);
  if (const Json* options = object.find("stream_options")) {
    if (!options->is_object()) {
      object.refuse("stream_options", "an object");
    } else {
      JsonObject inner(*options);
      fields.include_usage = inner.boolean("include_usage").value_or(false);
      if (inner.error()) object.refuse("stream_options", "{\"include_usage\": true or false}");
    }
  }
  refuse_unsupported(object);
  return fields;
}

/// A string, token ids, or a list of either.
void read_prompts(JsonObject& object, const RequestLimits& limits,
                  std::vector<PromptInput>& prompts) {
  const Json* value = object.find("prompt");
  const auto refuse = [&] {
    object.refuse("prompt", fmt::format("a string, a list of token ids, or a list of at most {} of "
                                        "either",
                                        limits.max_prompts));
  };
  const auto add = [&](const Json& one) {
    if (one.is_string()) {
      prompts.emplace_back(one.get<std::string>());
    } else if (auto ids = token_ids(one); ids && !ids->empty()) {
      prompts.emplace_back(std::move(*ids));
    } else {
      return false;
    }
    return true;
  };
  if (!value) return refuse();
  const bool is_list = value->is_array() && !value->empty() && !value->front().is_number();
  if (!is_list) {
    if (!add(*value)) refuse();
    return;
  }
  if (static_cast<int64_t>(value->size()) > limits.max_prompts) return refuse();
  for (const Json& one : *value) {
    if (!add(one)) return refuse();
  }
}

/// Text, or a list of {"type": "text", "text": ...} parts.
std::optional<std::string> message_text(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return std::nullopt;
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object() || part.value("type", Json()) != "text") return std::nullopt;
    const auto found = part.find("text");
    if (found == part.end() || !found->is_string()) return std::nullopt;
    text += found->get<std::string>();
  }
  return text;
}

void read_messages(JsonObject& object, const RequestLimits& limits,
                   std::vector<ChatMessage>& messages) {
  const Json* value = object.find("messages");
  const auto refuse = [&](std::string_view expected) { object.refuse("messages", expected); };
  if (!value || !value->is_array() || value->empty() ||
      static_cast<int64_t>(value->size()) > limits.max_messages) {
    return refuse(fmt::format("a list of 1..{} messages", limits.max_messages));
  }
  for (const Json& item : *value) {
    if (!item.is_object()) return refuse("objects with role and content");
    const auto role = item.find("role");
    const auto content = item.find("content");
    if (role == item.end() || !role->is_string() || role->get_ref<const std::string&>().empty() ||
        role->get_ref<const std::string&>().size() > 64) {
      return refuse("a role in each message: system, user or assistant");
    }
    if (content == item.end()) return refuse("a content in each message");
    auto text = message_text(*content);
    if (!text) return refuse("content that is a string or a list of text parts");
    const auto& name = role->get_ref<const std::string&>();
    // OpenAI's newer name; no template knows it.
    messages.push_back({name == "developer" ? "system" : name, std::move(*text)});
  }
}

template <typename Request>
ApiResult<Request> checked(const JsonObject& object, Request request) {
  if (object.error()) return tl::unexpected(*object.error());
  return request;
}

}  // namespace

ApiResult<CompletionRequest> parse_completion_request(std::string_view body,
                                                      const RequestLimits& limits) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  JsonObject object(*json);
  CompletionRequest request;
  request.fields = read_generation(object, limits);
  read_prompts(object, limits, request.prompts);
  request.echo = object.boolean("echo").value_or(false);
  request.fields.logprobs = object.integer("logprobs", 0, limits.max_logprobs);
  request.context_length = object.integer("context_length", 1, kMostTokens);
  if (request.context_length && !(request.echo && request.fields.logprobs)) {
    object.refuse("context_length", "echo and logprobs beside it: it is about scoring a prompt");
  }
  object.unsupported("best_of", {1, request.fields.n});
  return checked(object, std::move(request));
}

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  JsonObject object(*json);
  ChatRequest request;
  request.fields = read_generation(object, limits);
  if (const auto tokens = object.clamped_integer("max_completion_tokens", 1, kMostTokens)) {
    request.fields.max_tokens = tokens;
  }
  read_messages(object, limits, request.messages);
  const auto alternatives = object.integer("top_logprobs", 0, limits.max_logprobs);
  if (object.boolean("logprobs").value_or(false)) {
    request.fields.logprobs = alternatives.value_or(0);
  } else if (alternatives.value_or(0) > 0) {
    object.refuse("top_logprobs", "\"logprobs\": true beside it");
  }
  return checked(object, std::move(request));
}

ApiResult<TokenizeRequest> parse_tokenize_request(std::string_view body,
                                                  const RequestLimits& limits) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  JsonObject object(*json);
  TokenizeRequest request;
  if (object.find("messages")) {
    std::vector<ChatMessage> messages;
    read_messages(object, limits, messages);
    request.input = std::move(messages);
  } else if (auto text = object.text("prompt")) {
    request.input = std::move(*text);
  } else {
    object.refuse("prompt", "a string (or messages)");
  }
  request.add_special_tokens = object.boolean("add_special_tokens").value_or(true);
  request.return_token_strings = object.boolean("return_token_strs").value_or(false);
  return checked(object, std::move(request));
}

ApiResult<std::vector<int32_t>> parse_detokenize_request(std::string_view body) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  JsonObject object(*json);
  const Json* value = object.find("tokens");
  auto ids = value ? token_ids(*value) : std::nullopt;
  if (!ids) return tl::unexpected(bad_request("tokens: expected a list of token ids", "tokens"));
  return std::move(*ids);
}

}  // namespace kvcast

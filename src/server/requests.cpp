#include "server/requests.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <random>

#include "io/json.h"
#include "server/json_object.h"
#include "server/request_messages.h"

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

/// {"token id": bias}, as OpenAI's clients send it.
void read_logit_bias(JsonObject& object, TokenRules& rules) {
  constexpr size_t kMostBiases = 1024;
  const Json* value = object.find("logit_bias");
  if (!value) return;
  const auto refuse = [&] {
    object.refuse("logit_bias", fmt::format("an object of at most {} token ids with numbers within "
                                            "-100..100",
                                            kMostBiases));
  };
  if (!value->is_object() || value->size() > kMostBiases) return refuse();
  for (const auto& [name, bias] : value->items()) {
    int32_t token = 0;
    const char* const end = name.data() + name.size();
    const auto [after, error] = std::from_chars(name.data(), end, token);
    const bool is_token = error == std::errc{} && after == end && token >= 0;
    if (!is_token || !bias.is_number()) return refuse();
    const auto number = bias.get<double>();
    if (!(number >= -100 && number <= 100)) return refuse();
    rules.logit_bias.emplace_back(token, static_cast<float>(number));
  }
}

void read_token_rules(JsonObject& object, const RequestLimits& limits, GenerationFields& fields) {
  fields.tokens.presence_penalty =
      static_cast<float>(object.number("presence_penalty", -2, 2).value_or(0.0));
  fields.tokens.frequency_penalty =
      static_cast<float>(object.number("frequency_penalty", -2, 2).value_or(0.0));
  read_logit_bias(object, fields.tokens);
  if (const Json* value = object.find("stop_token_ids")) {
    auto ids = token_ids(*value);
    if (!ids || static_cast<int64_t>(ids->size()) > limits.max_stop_strings) {
      object.refuse("stop_token_ids",
                    fmt::format("a list of at most {} token ids", limits.max_stop_strings));
    } else {
      fields.tokens.stop_tokens = std::move(*ids);
    }
  }
  fields.tokens.min_tokens = object.clamped_integer("min_tokens", 0, kMostTokens).value_or(0);
  const Json* words = object.find("bad_words");
  if (!words) return;
  const auto refuse = [&] {
    object.refuse("bad_words", fmt::format("a list of at most {} words of 1..{} bytes",
                                           limits.max_bad_words, limits.max_stop_bytes));
  };
  if (!words->is_array() || static_cast<int64_t>(words->size()) > limits.max_bad_words) {
    return refuse();
  }
  for (const Json& word : *words) {
    if (!word.is_string()) return refuse();
    const auto& text = word.get_ref<const std::string&>();
    if (text.empty() || static_cast<int64_t>(text.size()) > limits.max_stop_bytes) return refuse();
    fields.bad_words.push_back(text);
  }
}

void read_sampling(JsonObject& object, SamplingOptions& sampling) {
  constexpr double kHuge = 1e6;
  sampling.temperature = static_cast<float>(object.number("temperature", 0, kHuge).value_or(1.0));
  sampling.top_p = static_cast<float>(object.number("top_p", 0, 1).value_or(1.0));
  if (sampling.top_p < std::numeric_limits<float>::min()) {  // only the most probable token
    sampling.temperature = 0;
    sampling.top_p = 1;
  }
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

/// Fields of OpenAI, vLLM and llama.cpp that would change the answer, with the values under which
/// they do not.
void refuse_unsupported(JsonObject& object) {
  static const std::vector<std::pair<std::string, std::vector<Json>>> kFields = {
      {"functions", {Json::array()}},
      {"function_call", {"none", "auto"}},
      {"response_format", {Json{{"type", "text"}}}},
      {"modalities", {Json::array({"text"})}},
      {"audio", {}},
      // vLLM
      {"allowed_token_ids", {Json::array()}},
      {"use_beam_search", {false}},
      {"length_penalty", {1, 1.0}},
      {"include_stop_str_in_output", {false}},
      {"skip_special_tokens", {true}},
      {"spaces_between_special_tokens", {true}},
      {"truncate_prompt_tokens", {}},
      {"prompt_logprobs", {0}},
      {"structured_outputs", {}},
      {"guided_json", {}},
      {"guided_regex", {}},
      {"guided_choice", {}},
      {"guided_grammar", {}},
      {"continue_final_message", {false}},
      {"add_generation_prompt", {true}},
      {"chat_template", {}},
      // llama.cpp
      {"grammar", {""}},
      {"json_schema", {Json::object()}},
      {"mirostat", {0}},
      {"typical_p", {1, 1.0}},
      {"dry_multiplier", {0, 0.0}},
      {"xtc_probability", {0, 0.0}},
      {"dynatemp_range", {0, 0.0}},
      {"n_probs", {0}},
  };
  for (const auto& [field, harmless] : kFields) object.unsupported(field, harmless);
}

/// Where answers are text alone.
void refuse_tools(JsonObject& object) {
  object.unsupported("tools", {Json::array()});
  object.unsupported("tool_choice", {"none", "auto"});
}

/// The longest answer; -1 is how clients say "as long as fits".
std::optional<int64_t> read_max_tokens(JsonObject& object, std::string_view field, int64_t least) {
  const Json* value = object.find(field);
  if (value && *value == -1) return kAsManyTokensAsFit;
  return object.clamped_integer(field, least, kMostTokens);
}

/// "auto", "off" or a number.
std::optional<int64_t> read_drafts(JsonObject& object) {
  const Json* value = object.find("drafts");
  if (!value) return std::nullopt;
  const auto drafts = parse_drafts(value->is_string() ? value->get<std::string>() : value->dump());
  if (drafts) return *drafts;
  object.refuse("drafts",
                fmt::format("\"auto\", \"off\" or a whole number from 1 to {}", kMostDrafts));
  return std::nullopt;
}

GenerationFields read_generation(JsonObject& object, const RequestLimits& limits) {
  GenerationFields fields;
  fields.model = object.text("model").value_or("");
  fields.prefill = object.text("prefill").value_or("");
  fields.max_tokens = read_max_tokens(object, "max_tokens", 0);
  fields.n = object.integer("n", 1, limits.max_choices).value_or(1);
  read_sampling(object, fields.sampling);
  read_stop(object, limits, fields.stop);
  read_token_rules(object, limits, fields);
  fields.ignore_end_of_text = object.boolean("ignore_eos").value_or(false);
  fields.stream = object.boolean("stream").value_or(false);
  fields.revise = object.boolean("revise").value_or(false);
  fields.drafts = read_drafts(object);
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

/// What has been read as a call cannot be taken back.
void refuse_revised_calls(JsonObject& object, const ChatRequest& request) {
  if (!request.tools.json.empty() && request.fields.stream && request.fields.revise) {
    object.refuse("revise", "false beside a stream with tools");
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
  request.suffix = object.text("suffix").value_or("");
  if (!request.suffix.empty() && request.echo) object.refuse("suffix", "no echo beside it");
  request.context_length = object.integer("context_length", 1, kMostTokens);
  if (request.context_length && !(request.echo && request.fields.logprobs)) {
    object.refuse("context_length", "echo and logprobs beside it: it is about scoring a prompt");
  }
  object.unsupported("best_of", {1, request.fields.n});
  refuse_tools(object);
  return checked(object, std::move(request));
}

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  JsonObject object(*json);
  ChatRequest request;
  request.fields = read_generation(object, limits);
  if (const auto tokens = read_max_tokens(object, "max_completion_tokens", 1)) {
    request.fields.max_tokens = tokens;
  }
  read_messages(object, limits, request.messages);
  read_tools(object, body, ToolShape::kNested, limits, request.tools);
  refuse_revised_calls(object, request);
  const auto alternatives = object.integer("top_logprobs", 0, limits.max_logprobs);
  if (object.boolean("logprobs").value_or(false)) {
    request.fields.logprobs = alternatives.value_or(0);
  } else if (alternatives.value_or(0) > 0) {
    object.refuse("top_logprobs", "\"logprobs\": true beside it");
  }
  return checked(object, std::move(request));
}

ApiResult<ChatRequest> parse_responses_request(std::string_view body, const RequestLimits& limits) {
  const auto json = parse_object(body);
  if (!json) return tl::unexpected(json.error());
  JsonObject object(*json);
  ChatRequest request;
  request.fields = read_generation(object, limits);
  // As OpenAI's clients name it here; there is one answer.
  request.fields.max_tokens = read_max_tokens(object, "max_output_tokens", 1);
  object.unsupported("n", {1});
  read_tools(object, body, ToolShape::kFlat, limits, request.tools);
  refuse_revised_calls(object, request);
  // Nothing is kept here between requests.
  object.unsupported("previous_response_id", {});
  object.unsupported("conversation", {});
  object.unsupported("background", {false});
  object.unsupported("prompt", {});
  object.unsupported("text", {Json{{"format", {{"type", "text"}}}}, Json::object()});
  object.unsupported("reasoning", {Json::object()});
  object.unsupported("truncation", {"disabled"});
  object.unsupported("include", {Json::array()});
  object.unsupported("max_tool_calls", {});
  object.unsupported("top_logprobs", {0});
  if (auto instructions = object.text("instructions")) {
    request.messages.push_back({"system", std::move(*instructions)});
  }
  const Json* input = object.find("input");
  if (input && input->is_string()) {
    request.messages.push_back({"user", input->get<std::string>()});
  } else {
    read_input_items(object, limits, request.messages);
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
    refuse_tools(object);
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

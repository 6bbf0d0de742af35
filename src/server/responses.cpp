#include "server/responses.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// A token's text; tokens without any, and bytes that are no character, get a name.
std::string token_name(int32_t token, const Tokenizer* tokenizer) {
  std::string text = tokenizer != nullptr ? tokenizer->piece_bytes(token) : std::string();
  if (text.empty()) return fmt::format("<token {}>", token);
  if (is_valid_utf8(text)) return text;
  std::string name = "bytes:";
  for (const char byte : text) name += fmt::format("\\x{:02x}", static_cast<unsigned char>(byte));
  return name;
}

OrderedJson finite(std::optional<float> logprob) {
  if (!logprob) return nullptr;
  constexpr float kImpossible = -9999.0F;  // what OpenAI writes for minus infinity
  return std::max(*logprob, kImpossible);
}

OrderedJson legacy_logprobs(const ChoiceAnswer& choice, const Tokenizer* tokenizer) {
  OrderedJson tokens = OrderedJson::array(), logprobs = OrderedJson::array();
  OrderedJson tops = OrderedJson::array(), offsets = OrderedJson::array();
  for (const ScoredToken& score : choice.scores) {
    const std::string name = token_name(score.token, tokenizer);
    tokens.push_back(name);
    logprobs.push_back(finite(score.logprob));
    OrderedJson top = OrderedJson::object();
    // Most probable first: of tokens with one name the first stays.
    for (const auto& [token, logprob] : score.top) {
      top.emplace(token_name(token, tokenizer), finite(logprob));
    }
    tops.push_back(score.logprob ? top : OrderedJson());
    offsets.push_back(score.text_offset);
  }
  return {{"tokens", tokens},
          {"token_logprobs", logprobs},
          {"top_logprobs", tops},
          {"text_offset", offsets}};
}

OrderedJson chat_token(int32_t token, std::optional<float> logprob, const Tokenizer* tokenizer) {
  OrderedJson bytes = OrderedJson::array();
  if (tokenizer != nullptr) {
    for (const char byte : tokenizer->piece_bytes(token)) {
      bytes.push_back(static_cast<unsigned char>(byte));
    }
  }
  return {{"token", token_name(token, tokenizer)}, {"logprob", finite(logprob)}, {"bytes", bytes}};
}

OrderedJson chat_logprobs(const ChoiceAnswer& choice, const Tokenizer* tokenizer) {
  OrderedJson content = OrderedJson::array();
  for (const ScoredToken& score : choice.scores) {
    OrderedJson entry = chat_token(score.token, score.logprob, tokenizer);
    entry["top_logprobs"] = OrderedJson::array();
    for (const auto& [token, logprob] : score.top) {
      entry["top_logprobs"].push_back(chat_token(token, logprob, tokenizer));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", content}};
}

OrderedJson to_json(const EngineTimings& t) {
  const double per_second =
      t.decode_ms > 0 ? 1e3 * static_cast<double>(t.decode_tokens) / t.decode_ms : 0;
  OrderedJson json = {{"prefill", t.prefill},
                      {"queue_ms", t.queue_ms},
                      {"tokenize_ms", t.tokenize_ms},
                      {"auxiliary_ms", t.auxiliary_ms},
                      {"predictor_ms", t.predictor_ms},
                      {"base_ms", t.base_ms},
                      {"prefill_ms", t.prefill_ms},
                      {"ttft_ms", t.ttft_ms},
                      {"decode_ms", t.decode_ms},
                      {"prompt_tokens", t.prompt_tokens},
                      {"cached_tokens", t.cached_tokens},
                      {"predicted_tokens", t.predicted_tokens},
                      {"generated_tokens", t.generated_tokens},
                      {"decode_tokens_per_s", per_second},
                      {"drafted_tokens", t.drafted_tokens},
                      {"accepted_tokens", t.accepted_tokens}};
  if (t.estimated_ms) json["estimated_ms"] = *t.estimated_ms;
  if (t.gate) {
    json["gate"] = {{"trusted", t.gate->trusted()},
                    {"score", t.gate->score},
                    {"threshold", t.gate->threshold},
                    {"ms", t.gate->ms}};
  }
  if (t.refinement) {
    const Refinement& r = *t.refinement;
    const auto agreement = r.agreement();
    json["refined_rows"] = r.refined_rows;
    json["exact_after_tokens"] =
        r.exact_after_tokens < 0 ? OrderedJson() : OrderedJson(r.exact_after_tokens);
    json["agreement"] = agreement ? OrderedJson(*agreement) : OrderedJson();
    json["revised_tokens"] = r.revised_tokens;
  }
  return json;
}

OrderedJson to_json(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson head_json(const AnswerHead& head, bool streamed) {
  const bool chat = head.kind == AnswerKind::kChat;
  return {{"id", head.id},
          {"object", !chat      ? "text_completion"
                     : streamed ? "chat.completion.chunk"
                                : "chat.completion"},
          {"created", head.created},
          {"model", head.model}};
}

OrderedJson reason_json(const ChoiceAnswer& choice) {
  return choice.finish_reason.empty() ? OrderedJson() : OrderedJson(choice.finish_reason);
}

/// Objects of /v1/completions and /v1/chat/completions.
class ChoicesFormat final : public AnswerFormat {
 public:
  ChoicesFormat(AnswerHead head, FormatOptions options, const Tokenizer* tokenizer)
      : head_(std::move(head)), options_(std::move(options)), tokenizer_(tokenizer) {}

  std::string whole(const WholeAnswer& answer) override {
    OrderedJson json = head_json(head_, false);
    json["choices"] = OrderedJson::array();
    for (const ChoiceAnswer& choice : answer.choices) {
      OrderedJson one = {{"index", choice.index}};
      if (is_chat()) {
        one["message"] = message_json(choice);
      } else {
        one["text"] = choice.text;
      }
      one["logprobs"] = options_.logprobs ? logprobs_json(choice) : OrderedJson();
      one["finish_reason"] = reason_json(choice);
      json["choices"].push_back(std::move(one));
    }
    json["usage"] = to_json(answer.usage);
    json["timings"] = timings_json(answer.timings);
    return json_line(json);
  }

  std::string first_events() override { return {}; }

  std::string event(const StreamPiece& piece) override {
    OrderedJson json = head_json(head_, true);
    json["choices"] = OrderedJson::array();
    if (const ChoiceAnswer* choice = piece.choice) {
      OrderedJson one = {{"index", choice->index}};
      if (is_chat()) {
        one["delta"] = OrderedJson::object();
        if (piece.first_of_choice) one["delta"]["role"] = "assistant";
        if (piece.first_of_choice || !choice->text.empty()) one["delta"]["content"] = choice->text;
        if (!choice->calls.empty()) one["delta"]["tool_calls"] = calls_json(*choice, true);
      } else {
        one["text"] = choice->text;
      }
      const bool scored = options_.logprobs && !choice->scores.empty();
      one["logprobs"] = scored ? logprobs_json(*choice) : OrderedJson();
      one["finish_reason"] = reason_json(*choice);
      json["choices"].push_back(std::move(one));
    }
    if (const auto* progress = piece.progress) {
      json["prompt_progress"] = {{"total", progress->total},
                                 {"cache", progress->cached},
                                 {"processed", progress->processed},
                                 {"time_ms", progress->time_ms}};
    }
    if (!piece.timings.empty()) json["timings"] = timings_json(piece.timings);
    return event_of(json);
  }

  std::string last_events(const Usage& usage, std::span<const EngineTimings> /*all*/) override {
    if (!options_.include_usage) return kDone;
    OrderedJson json = head_json(head_, true);
    json["choices"] = OrderedJson::array();
    json["usage"] = to_json(usage);
    return event_of(json) + kDone;
  }

  std::string error_events(const ApiError& error) override {
    return "data: " + error_body(error) + "\n\n" + kDone;
  }

 private:
  static constexpr const char* kDone = "data: [DONE]\n\n";
  static std::string event_of(const OrderedJson& json) {
    return "data: " + json_line(json) + "\n\n";
  }
  [[nodiscard]] bool is_chat() const { return head_.kind == AnswerKind::kChat; }
  [[nodiscard]] OrderedJson message_json(const ChoiceAnswer& choice) const {
    OrderedJson message = {{"role", "assistant"}, {"content", choice.text}};
    if (choice.calls.empty()) return message;
    if (choice.text.empty()) message["content"] = nullptr;
    message["tool_calls"] = calls_json(choice, false);
    return message;
  }
  /// Parts of a stream say which call they belong to.
  [[nodiscard]] OrderedJson calls_json(const ChoiceAnswer& choice, bool streamed) const {
    OrderedJson all = OrderedJson::array();
    for (const ToolCallPart& part : choice.calls) {
      OrderedJson call = OrderedJson::object();
      if (streamed) call["index"] = part.index;
      OrderedJson function = OrderedJson::object();
      if (!part.name.empty()) {
        const std::string own = head_.id.substr(head_.id.find('-') + 1);
        call["id"] = fmt::format("call_{}_{}_{}", own, choice.index, part.index);
        call["type"] = "function";
        function["name"] = part.name;
      }
      function["arguments"] = part.arguments;
      call["function"] = std::move(function);
      all.push_back(std::move(call));
    }
    return all;
  }
  [[nodiscard]] OrderedJson logprobs_json(const ChoiceAnswer& choice) const {
    return is_chat() ? chat_logprobs(choice, tokenizer_) : legacy_logprobs(choice, tokenizer_);
  }

  AnswerHead head_;
  FormatOptions options_;
  const Tokenizer* tokenizer_;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_answer_format(AnswerHead head, FormatOptions options,
                                                 const Tokenizer* tokenizer) {
  if (head.kind == AnswerKind::kResponse) {
    return make_response_format(std::move(head), std::move(options.tools));
  }
  return std::make_unique<ChoicesFormat>(std::move(head), std::move(options), tokenizer);
}

OrderedJson timings_json(std::span<const EngineTimings> timings) {
  if (timings.size() == 1) return to_json(timings.front());
  OrderedJson list = OrderedJson::array();
  for (const EngineTimings& of_prompt : timings) list.push_back(to_json(of_prompt));
  return list;
}

std::string AnswerFormat::revision(int64_t choice, int64_t characters, int64_t /*bytes*/) {
  const OrderedJson json = {
      {"object", "kvcast.revision"}, {"index", choice}, {"from_character", characters}};
  return "event: revision\ndata: " + json_line(json) + "\n\n";
}

std::string_view api_finish_reason(FinishReason reason) {
  return reason == FinishReason::kEndOfText || reason == FinishReason::kStopString ? "stop"
                                                                                   : "length";
}

}  // namespace kvcast

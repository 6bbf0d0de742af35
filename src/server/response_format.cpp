// /v1/responses: OpenAI's newer shape of one text answer, and its events.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/responses.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

class ResponseFormat final : public AnswerFormat {
 public:
  explicit ResponseFormat(AnswerHead head)
      : head_(std::move(head)), item_id_("msg_" + head_.id.substr(head_.id.find('_') + 1)) {}

  std::string whole(const WholeAnswer& answer) override {
    text_ = answer.choices.front().text;
    reason_ = answer.choices.front().finish_reason;
    return finished(answer.usage, answer.timings)
        .dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  }

  std::string first_events() override {
    OrderedJson empty = item("in_progress");
    empty["content"] = OrderedJson::array();
    OrderedJson begun = response("in_progress");
    begun["output"] = OrderedJson::array();
    text_.clear();
    // One after the other: each takes the next number.
    std::string events = event("response.created", {{"response", begun}});
    events += event("response.in_progress", {{"response", begun}});
    events += event("response.output_item.added", {{"output_index", 0}, {"item", empty}});
    events += event("response.content_part.added", in_content({{"part", part()}}));
    return events;
  }

  std::string event(const StreamPiece& piece) override {
    if (!piece.choice) return {};
    if (!piece.choice->finish_reason.empty()) reason_ = piece.choice->finish_reason;
    if (piece.choice->text.empty()) return {};
    text_ += piece.choice->text;
    return event("response.output_text.delta",
                 in_content({{"delta", piece.choice->text}, {"logprobs", OrderedJson::array()}}));
  }

  std::string last_events(const Usage& usage, std::span<const EngineTimings> timings) override {
    std::string events = event("response.output_text.done",
                               in_content({{"text", text_}, {"logprobs", OrderedJson::array()}}));
    events += event("response.content_part.done", in_content({{"part", part()}}));
    events += event("response.output_item.done", {{"output_index", 0}, {"item", item(status())}});
    events += event("response." + status(), {{"response", finished(usage, timings)}});
    return events;
  }

  std::string error_events(const ApiError& error) override {
    return event("error", {{"code", error.code}, {"message", error.message}, {"param", nullptr}});
  }

 private:
  std::string event(const std::string& type, const OrderedJson& fields) {
    OrderedJson json = {{"type", type}, {"sequence_number", sequence_number_++}};
    json.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type,
                       json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
  }
  [[nodiscard]] OrderedJson in_content(const OrderedJson& fields) const {
    OrderedJson json = {{"item_id", item_id_}, {"output_index", 0}, {"content_index", 0}};
    json.update(fields);
    return json;
  }
  [[nodiscard]] std::string status() const {
    return reason_ == "length" ? "incomplete" : "completed";
  }
  [[nodiscard]] OrderedJson part() const {
    return {{"type", "output_text"}, {"text", text_}, {"annotations", OrderedJson::array()}};
  }
  [[nodiscard]] OrderedJson item(const std::string& status) const {
    return {{"id", item_id_},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", OrderedJson::array({part()})}};
  }
  [[nodiscard]] OrderedJson response(const std::string& status) const {
    return {{"id", head_.id},
            {"object", "response"},
            {"created_at", head_.created},
            {"status", status},
            {"error", nullptr},
            {"incomplete_details", nullptr},
            {"instructions", nullptr},
            {"model", head_.model},
            {"output", OrderedJson::array({item(status)})},
            {"parallel_tool_calls", false},
            {"previous_response_id", nullptr},
            {"store", false},
            {"text", {{"format", {{"type", "text"}}}}},
            {"tool_choice", "none"},
            {"tools", OrderedJson::array()},
            {"truncation", "disabled"},
            {"metadata", OrderedJson::object()}};
  }
  [[nodiscard]] OrderedJson finished(const Usage& usage,
                                     std::span<const EngineTimings> timings) const {
    OrderedJson json = response(status());
    if (status() == "incomplete") json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json["usage"] = {{"input_tokens", usage.prompt_tokens},
                     {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                     {"output_tokens", usage.completion_tokens},
                     {"output_tokens_details", {{"reasoning_tokens", 0}}},
                     {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
    json["timings"] = timings_json(timings);
    return json;
  }

  AnswerHead head_;
  std::string item_id_;
  std::string text_, reason_;
  int64_t sequence_number_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_response_format(AnswerHead head) {
  return std::make_unique<ResponseFormat>(std::move(head));
}

}  // namespace kvcast

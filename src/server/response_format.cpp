// /v1/responses: OpenAI's newer shape of one answer, a list of messages and calls, and its events.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/responses.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

class ResponseFormat final : public AnswerFormat {
 public:
  ResponseFormat(AnswerHead head, ToolFields tools)
      : head_(std::move(head)),
        own_(head_.id.substr(head_.id.find('_') + 1)),
        tools_(std::move(tools)) {}

  std::string whole(const WholeAnswer& answer) override {
    add(answer.choices.front());
    end_items();
    return json_line(finished(answer.usage, answer.timings));
  }

  std::string first_events() override {
    const OrderedJson begun = response("in_progress");
    // One after the other: each takes the next number.
    std::string events = event("response.created", {{"response", begun}});
    events += event("response.in_progress", {{"response", begun}});
    return events;
  }

  std::string event(const StreamPiece& piece) override {
    return piece.choice != nullptr ? add(*piece.choice) : std::string();
  }

  /// What is taken back is of the only message: revisions are refused beside tools.
  std::string revision(int64_t choice, int64_t characters, int64_t bytes) override {
    if (!items_.empty()) items_.back().text.resize(static_cast<size_t>(bytes));
    return AnswerFormat::revision(choice, characters, bytes);
  }

  std::string last_events(const Usage& usage, std::span<const EngineTimings> timings) override {
    std::string events = end_items();
    events += event("response." + status(), {{"response", finished(usage, timings)}});
    return events;
  }

  std::string error_events(const ApiError& error) override {
    return event("error", {{"code", error.code}, {"message", error.message}, {"param", nullptr}});
  }

 private:
  /// A message, or the call of a function.
  struct Item {
    std::string name;  ///< of the function; empty: a message
    std::string text;  ///< the message's, or the arguments
    bool is_done = false;

    [[nodiscard]] bool is_call() const { return !name.empty(); }
  };

  /// Takes what is new of the answer; gives its events.
  std::string add(const ChoiceAnswer& answer) {
    std::string events;
    if (!answer.text.empty()) {
      if (items_.empty() || items_.back().is_call()) events += begin_item({});
      items_.back().text += answer.text;
      events += event("response.output_text.delta", of_item({{"content_index", 0},
                                                             {"delta", answer.text},
                                                             {"logprobs", OrderedJson::array()}}));
    }
    for (const ToolCallPart& part : answer.calls) {
      if (!part.name.empty()) events += begin_item(part.name);
      items_.back().text += part.arguments;
      if (part.arguments.empty()) continue;
      events +=
          event("response.function_call_arguments.delta", of_item({{"delta", part.arguments}}));
    }
    if (!answer.finish_reason.empty()) reason_ = answer.finish_reason;
    return events;
  }

  std::string begin_item(const std::string& name) {
    std::string events = end_item();
    items_.push_back({.name = name, .text = {}});
    OrderedJson empty = item_json(items_.size() - 1);
    if (!items_.back().is_call()) empty["content"] = OrderedJson::array();
    events += event("response.output_item.added",
                    {{"output_index", items_.size() - 1}, {"item", std::move(empty)}});
    if (!items_.back().is_call()) {
      events += event("response.content_part.added",
                      of_item({{"content_index", 0}, {"part", part_json(items_.back())}}));
    }
    return events;
  }

  std::string end_item() {
    if (items_.empty() || items_.back().is_done) return {};
    Item& item = items_.back();
    item.is_done = true;
    std::string events;
    if (item.is_call()) {
      events = event("response.function_call_arguments.done",
                     of_item({{"name", item.name}, {"arguments", item.text}}));
    } else {
      events = event(
          "response.output_text.done",
          of_item({{"content_index", 0}, {"text", item.text}, {"logprobs", OrderedJson::array()}}));
      events += event("response.content_part.done",
                      of_item({{"content_index", 0}, {"part", part_json(item)}}));
    }
    events += event("response.output_item.done",
                    {{"output_index", items_.size() - 1}, {"item", item_json(items_.size() - 1)}});
    return events;
  }

  /// An answer of nothing is a message of nothing.
  std::string end_items() {
    std::string events = items_.empty() ? begin_item({}) : std::string();
    events += end_item();
    return events;
  }

  std::string event(const std::string& type, const OrderedJson& fields) {
    OrderedJson json = {{"type", type}, {"sequence_number", sequence_number_++}};
    json.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type, json_line(json));
  }

  /// Fields of an event of the item that is being written.
  [[nodiscard]] OrderedJson of_item(const OrderedJson& fields) const {
    const size_t index = items_.size() - 1;
    OrderedJson json = {{"item_id", item_id(index)}, {"output_index", index}};
    json.update(fields);
    return json;
  }

  [[nodiscard]] std::string item_id(size_t index) const {
    return fmt::format("{}_{}_{}", items_[index].is_call() ? "fc" : "msg", own_, index);
  }
  static OrderedJson part_json(const Item& item) {
    return {{"type", "output_text"}, {"text", item.text}, {"annotations", OrderedJson::array()}};
  }
  [[nodiscard]] OrderedJson item_json(size_t index) const {
    const Item& item = items_[index];
    const bool is_last = index + 1 == items_.size();
    const std::string state = !item.is_done         ? "in_progress"
                              : is_last && is_cut() ? "incomplete"
                                                    : "completed";
    OrderedJson json = {{"id", item_id(index)},
                        {"type", item.is_call() ? "function_call" : "message"},
                        {"status", state}};
    if (item.is_call()) {
      json["call_id"] = fmt::format("call_{}_{}", own_, index);
      json["name"] = item.name;
      json["arguments"] = item.text;
    } else {
      json["role"] = "assistant";
      json["content"] = OrderedJson::array({part_json(item)});
    }
    return json;
  }
  [[nodiscard]] bool is_cut() const { return reason_ == "length"; }
  [[nodiscard]] std::string status() const { return is_cut() ? "incomplete" : "completed"; }

  [[nodiscard]] OrderedJson response(const std::string& status) const {
    OrderedJson output = OrderedJson::array();
    for (size_t i = 0; i < items_.size(); ++i) output.push_back(item_json(i));
    return {{"id", head_.id},
            {"object", "response"},
            {"created_at", head_.created},
            {"status", status},
            {"error", nullptr},
            {"incomplete_details", nullptr},
            {"instructions", nullptr},
            {"model", head_.model},
            {"output", std::move(output)},
            {"parallel_tool_calls", tools_.parallel},
            {"previous_response_id", nullptr},
            {"store", false},
            {"text", {{"format", {{"type", "text"}}}}},
            {"tool_choice", OrderedJson::parse(tools_.choice)},
            {"tools", OrderedJson::parse(tools_.asked)},
            {"truncation", "disabled"},
            {"metadata", OrderedJson::object()}};
  }
  [[nodiscard]] OrderedJson finished(const Usage& usage,
                                     std::span<const EngineTimings> timings) const {
    OrderedJson json = response(status());
    if (is_cut()) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json["usage"] = {{"input_tokens", usage.prompt_tokens},
                     {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                     {"output_tokens", usage.completion_tokens},
                     {"output_tokens_details", {{"reasoning_tokens", 0}}},
                     {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
    json["timings"] = timings_json(timings);
    return json;
  }

  AnswerHead head_;
  std::string own_;  ///< what ids of items share with the response's
  ToolFields tools_;
  std::vector<Item> items_;
  std::string reason_;
  int64_t sequence_number_ = 0;
};

}  // namespace

std::unique_ptr<AnswerFormat> make_response_format(AnswerHead head, ToolFields tools) {
  return std::make_unique<ResponseFormat>(std::move(head), std::move(tools));
}

}  // namespace kvcast

#include "server/request_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "runtime/tool_calls.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// Text, or a list of {"type": "text", "text": ...} parts; in a Responses request they are
/// "input_text" and "output_text".
std::optional<std::string> message_text(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return std::nullopt;
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object()) return std::nullopt;
    const Json type = part.value("type", Json());
    if (type != "text" && type != "input_text" && type != "output_text") return std::nullopt;
    const auto found = part.find("text");
    if (found == part.end() || !found->is_string()) return std::nullopt;
    text += found->get<std::string>();
  }
  return text;
}

/// A member that is text; null if there is none.
const std::string* text_in(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get_ptr<const std::string*>()
                                                     : nullptr;
}
const std::string* text_in(Json&&, const char*) = delete;

/// Calls of an earlier answer. nullopt: they are not what clients send.
std::optional<OrderedJson> calls_of(const Json& calls) {
  if (!calls.is_array()) return std::nullopt;
  OrderedJson all = OrderedJson::array();
  for (const Json& call : calls) {
    const Json function = call.is_object() ? call.value("function", Json()) : Json();
    const std::string* const name = text_in(function, "name");
    const std::string* const arguments = text_in(function, "arguments");
    if (!name || !is_tool_name(*name) || !arguments) return std::nullopt;
    OrderedJson made = OrderedJson::object();
    if (const std::string* const id = text_in(call, "id")) made["id"] = *id;
    made["type"] = "function";
    made["function"] = {{"name", *name}, {"arguments", *arguments}};
    all.push_back(std::move(made));
  }
  return all;
}

/// What a message has beside its text, as the text of a JSON object. An error says what was
/// expected.
Result<std::string> more_of(const Json& message, const std::string& role) {
  OrderedJson more = OrderedJson::object();
  const auto calls = message.find("tool_calls");
  if (role == "assistant" && calls != message.end() && !calls->is_null()) {
    auto made = calls_of(*calls);
    if (!made) return fail("tool_calls with a function's name and its arguments as text");
    if (!made->empty()) more["tool_calls"] = std::move(*made);
  }
  if (role == "tool") {
    for (const char* field : {"tool_call_id", "name"}) {
      if (const std::string* const text = text_in(message, field)) more[field] = *text;
    }
  }
  return more.empty() ? std::string() : more.dump();
}

/// The tool that "tool_choice" names; empty if it is not of that form.
std::string named_tool(const Json& choice) {
  if (!choice.is_object() || choice.value("type", Json()) != "function") return {};
  const Json function = choice.value("function", Json());
  const std::string* const name = text_in(function, "name");
  return name ? *name : std::string();
}

}  // namespace

void read_messages(JsonObject& object, std::string_view field, const RequestLimits& limits,
                   std::vector<ChatMessage>& messages) {
  const Json* value = object.find(field);
  const auto refuse = [&](std::string_view expected) { object.refuse(field, expected); };
  if (!value || !value->is_array() || value->empty() ||
      static_cast<int64_t>(value->size()) > limits.max_messages) {
    return refuse(fmt::format("a list of 1..{} messages", limits.max_messages));
  }
  for (const Json& item : *value) {
    if (!item.is_object()) return refuse("objects with role and content");
    const std::string* const role = text_in(item, "role");
    if (!role || role->empty() || role->size() > 64) {
      return refuse("a role in each message: system, user, assistant or tool");
    }
    auto more = more_of(item, *role);
    if (!more) return refuse(more.error().message);
    const auto content = item.find("content");
    const bool is_absent = content == item.end();
    if (is_absent && more->empty()) return refuse("a content in each message");
    // What an assistant said beside its tool calls may be nothing.
    const bool is_nothing = is_absent || content->is_null();
    auto text = is_nothing && *role == "assistant" ? std::string()
                : is_absent                        ? std::nullopt
                                                   : message_text(*content);
    if (!text) return refuse("content that is a string or a list of text parts");
    // OpenAI's newer name; no template knows it.
    messages.push_back(
        {*role == "developer" ? "system" : *role, std::move(*text), std::move(*more)});
  }
}

void read_tools(JsonObject& object, std::string_view body, const RequestLimits& limits,
                ToolFields& tools) {
  tools.parallel = object.boolean("parallel_tool_calls").value_or(true);
  const Json* list = object.find("tools");
  if (list && (!list->is_array() || static_cast<int64_t>(list->size()) > limits.max_tools)) {
    return object.refuse("tools", fmt::format("a list of at most {} tools", limits.max_tools));
  }
  if (list) {
    for (const Json& tool : *list) {
      auto name = tool_name(tool);
      if (!name) return object.refuse("tools", name.error().message);
      tools.names.push_back(std::move(*name));
    }
  }
  const Json* choice = object.find("tool_choice");
  const std::string named = choice ? named_tool(*choice) : std::string();
  if (choice && named.empty() && *choice != "auto" && *choice != "none" && *choice != "required") {
    return object.refuse("tool_choice", R"("auto", "none", "required" or {"type": "function", )"
                                        R"("function": {"name": ...}})");
  }
  tools.must_call = choice && *choice != "auto" && *choice != "none";
  if (!named.empty()) {
    if (std::ranges::find(tools.names, named) == tools.names.end()) {
      return object.refuse("tool_choice", "the name of one of the tools");
    }
    tools.names = {named};
  }
  if (tools.must_call && tools.names.empty()) {
    return object.refuse("tools", "a tool to call, as tool_choice asks for one");
  }
  if (tools.names.empty() || (choice && *choice == "none")) {
    tools.names.clear();
    return;
  }
  // Templates print tools: their keys keep the order of the request, which Json sorts.
  tools.json = OrderedJson::parse(body)["tools"].dump();
}

}  // namespace kvcast

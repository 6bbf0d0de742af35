#include "server/request_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "runtime/tool_calls.h"

namespace kvcast {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::string_view kNestedChoice = R"({"type": "function", "function": {"name": ...}})";
constexpr std::string_view kFlatChoice = R"({"type": "function", "name": ...})";

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

/// A tool, or a choice of one, of a Responses request as chats have it: what is beside "type" goes
/// into "function". What is none stays as it is.
template <typename AnyJson>
AnyJson nested(const AnyJson& flat) {
  if (!flat.is_object() || flat.value("type", AnyJson()) != "function") return flat;
  AnyJson function = flat;
  function.erase("type");
  return {{"type", "function"}, {"function", std::move(function)}};
}

/// The tool that "tool_choice" names; empty if it is not of that form.
std::string named_tool(const Json& choice) {
  if (!choice.is_object() || choice.value("type", Json()) != "function") return {};
  const Json function = choice.value("function", Json());
  const std::string* const name = text_in(function, "name");
  return name ? *name : std::string();
}

bool is_list(const Json* value, int64_t most) {
  return value && value->is_array() && !value->empty() &&
         static_cast<int64_t>(value->size()) <= most;
}

/// Adds an item of a Responses request's "input" to a list of messages as chats have them. False:
/// it is none that is known here.
bool add_item(const Json& item, Json& messages) {
  const Json type = item.is_object() ? item.value("type", Json("message")) : Json();
  if (type == "message") {
    messages.push_back(item);
    return true;
  }
  const bool is_call = type == "function_call";
  if (!is_call && type != "function_call_output") return false;
  const std::string* const id = text_in(item, "call_id");
  if (!id) return false;
  if (!is_call) {
    messages.push_back(
        {{"role", "tool"}, {"tool_call_id", *id}, {"content", item.value("output", Json())}});
    return true;
  }
  const bool goes_on = !messages.empty() && messages.back().is_object() &&
                       messages.back().value("role", Json()) == "assistant";
  if (!goes_on) messages.push_back({{"role", "assistant"}, {"content", nullptr}});
  Json& calls = messages.back()["tool_calls"];
  if (!calls.is_null() && !calls.is_array()) return false;
  calls.push_back(
      {{"id", *id},
       {"type", "function"},
       {"function",
        {{"name", item.value("name", Json())}, {"arguments", item.value("arguments", Json())}}}});
  return true;
}

/// `field` is where `list` comes from.
void add_messages(JsonObject& object, std::string_view field, const Json& list,
                  std::vector<ChatMessage>& messages) {
  const auto refuse = [&](std::string_view expected) { object.refuse(field, expected); };
  for (const Json& item : list) {
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

}  // namespace

void read_messages(JsonObject& object, const RequestLimits& limits,
                   std::vector<ChatMessage>& messages) {
  const Json* value = object.find("messages");
  if (!is_list(value, limits.max_messages)) {
    return object.refuse("messages", fmt::format("a list of 1..{} messages", limits.max_messages));
  }
  add_messages(object, "messages", *value, messages);
}

void read_input_items(JsonObject& object, const RequestLimits& limits,
                      std::vector<ChatMessage>& messages) {
  const Json* value = object.find("input");
  if (!is_list(value, limits.max_messages)) {
    return object.refuse("input",
                         fmt::format("text, or a list of 1..{} items", limits.max_messages));
  }
  Json list = Json::array();
  for (const Json& item : *value) {
    if (!add_item(item, list)) {
      return object.refuse("input",
                           R"(items of type "message", "function_call" or "function_call_output", )"
                           R"(the last two with a call_id)");
    }
  }
  add_messages(object, "input", list, messages);
}

void read_tools(JsonObject& object, std::string_view body, ToolShape shape,
                const RequestLimits& limits, ToolFields& tools) {
  const bool is_flat = shape == ToolShape::kFlat;
  tools.parallel = object.boolean("parallel_tool_calls").value_or(true);
  const Json* list = object.find("tools");
  if (list && (!list->is_array() || static_cast<int64_t>(list->size()) > limits.max_tools)) {
    return object.refuse("tools", fmt::format("a list of at most {} tools", limits.max_tools));
  }
  if (list) {
    for (const Json& tool : *list) {
      auto name = tool_name(is_flat ? nested(tool) : tool);
      if (!name) return object.refuse("tools", name.error().message);
      tools.names.push_back(std::move(*name));
    }
  }
  const Json* choice = object.find("tool_choice");
  const std::string named =
      choice ? named_tool(is_flat ? nested(*choice) : *choice) : std::string();
  if (choice && named.empty() && *choice != "auto" && *choice != "none" && *choice != "required") {
    return object.refuse("tool_choice", fmt::format(R"("auto", "none", "required" or {})",
                                                    is_flat ? kFlatChoice : kNestedChoice));
  }
  if (choice) tools.choice = choice->dump();
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
  OrderedJson ordered = OrderedJson::parse(body)["tools"];
  tools.asked = ordered.dump();
  if (is_flat) std::ranges::transform(ordered, ordered.begin(), nested<OrderedJson>);
  tools.json = ordered.dump();
}

}  // namespace kvcast

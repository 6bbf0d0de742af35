#include <fmt/format.h>

#include <algorithm>
#include <random>
#include <utility>

#include "base/macros.h"
#include "io/json.h"
#include "kvcast/chat.h"
#include "runtime/chat_template.h"
#include "runtime/model_impl.h"
#include "runtime/tool_calls.h"

namespace kvcast {
namespace {

/// What a prompt's options come to.
struct ToolPlan {
  std::string tools = {};               ///< JSON for the template; empty: none
  std::vector<std::string> names = {};  ///< that the answer may call
  std::string opening = {};             ///< of the answer
};

Result<std::vector<std::string>> names_of(const std::string& tools) {
  KVCAST_TRY(const Json list, parse_json(tools, "tools"));
  if (!list.is_array()) return fail("tools: expected a list");
  std::vector<std::string> names;
  for (const Json& tool : list) {
    auto name = tool_name(tool);
    if (!name) {
      return fail(fmt::format("tools[{}]: expected {}", names.size(), name.error().message));
    }
    names.push_back(*std::move(name));
  }
  return names;
}

Result<ToolPlan> plan_of(const ChatPromptOptions& options, ToolCallForm form) {
  ToolPlan plan = {.opening = options.opening};
  const std::string& choice = options.tool_choice;
  if (!options.tools.empty()) {
    KVCAST_TRY(plan.names, names_of(options.tools));
  }
  if (choice != "auto" && choice != "none" && choice != "required") {
    if (std::ranges::find(plan.names, choice) == plan.names.end()) {
      return fail(fmt::format(
          "tool_choice: \"{}\", expected auto, none, required or the name of one of the tools",
          choice));
    }
    plan.names = {choice};
  }
  if (choice == "none") plan.names.clear();
  const bool must_call = choice != "auto" && choice != "none";
  if (plan.names.empty()) {
    if (must_call) return fail("tool_choice: a call is asked for, but there are no tools");
    return plan;
  }
  if (form == ToolCallForm::kNone) return fail(std::string(kNoPlaceForTools));
  if (form == ToolCallForm::kUnknown) return fail(std::string(kUnknownToolCalls));
  plan.tools = options.tools;
  if (must_call) {
    plan.opening += tool_call_opening(form, plan.names.size() == 1 ? plan.names.front() : "");
  }
  return plan;
}

/// Nine letters and digits, which every template takes for the id of a call.
std::string new_call_id() {
  constexpr std::string_view kCharacters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::random_device device;
  std::uniform_int_distribution<size_t> any(0, kCharacters.size() - 1);
  std::string id(9, ' ');
  std::ranges::generate(id, [&] { return kCharacters[any(device)]; });
  return id;
}

}  // namespace

ChatFormat::ChatFormat(std::shared_ptr<const Model> model,
                       std::shared_ptr<const ChatTemplate> written)
    : model_(std::move(model)), template_(std::move(written)) {}

Result<ChatFormat> ChatFormat::of(std::shared_ptr<const Model> model) {
  const Model::Impl& impl = model->impl();
  if (const auto tokens = model->tokenize(""); !tokens) return tl::unexpected(tokens.error());
  KVCAST_TRY(auto written, ChatTemplate::load(impl.path, *impl.tokenizer));
  return ChatFormat(std::move(model), std::move(written));
}

Result<ChatPrompt> ChatFormat::render(std::span<const ChatMessage> messages,
                                      const ChatPromptOptions& options) const {
  KVCAST_TRY(ToolPlan plan, plan_of(options, template_->tool_calls()));
  return template_->render({messages.begin(), messages.end()},
                           {.tools = std::move(plan.tools), .opening = std::move(plan.opening)});
}

Result<ChatMessage> ChatFormat::read_answer(std::string_view text,
                                            const ChatPromptOptions& options) const {
  KVCAST_TRY(ToolPlan plan, plan_of(options, template_->tool_calls()));
  ChatMessage message = {.role = "assistant", .content = std::move(plan.opening)};
  message.content += text;
  if (plan.names.empty()) return message;
  ToolCallReader reader(std::move(plan.names), true);
  AnswerParts parts;
  reader.add(message.content, parts);
  reader.end(parts);
  message.content = std::move(parts.content);
  if (parts.calls.empty()) return message;
  auto calls = nlohmann::ordered_json::array();
  for (const ToolCallPart& call : parts.calls) {
    calls.push_back({{"id", new_call_id()},
                     {"type", "function"},
                     {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  message.more = nlohmann::ordered_json{{"tool_calls", std::move(calls)}}.dump();
  return message;
}

std::vector<std::string> ChatFormat::stop_strings() const { return template_->stop_strings(); }

}  // namespace kvcast

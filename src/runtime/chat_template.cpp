#include "runtime/chat_template.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "io/json.h"
#include "model/bundle.h"
#include "model/model_text.h"
#include "runtime/jinja/template.h"

namespace kvcast {
namespace {

/// Templates print maps: keys keep their order, which Json would sort.
using OrderedJson = nlohmann::ordered_json;

/// What base models, which know no special tokens for turns, continue sensibly.
class PlainTemplate final : public ChatTemplate {
 public:
  explicit PlainTemplate(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  Result<ChatPrompt> render(const std::vector<ChatMessage>& messages,
                            const ChatPromptOptions& options) const override {
    if (!options.tools.empty()) return fail(std::string(kNoPlaceForTools));
    ChatPrompt prompt;
    for (const ChatMessage& message : messages) {
      if (message.role == "system" || message.role == "developer") {
        prompt.text += message.content + "\n\n";
      } else if (message.role == "user") {
        prompt.text += "User: " + message.content + "\n";
      } else if (message.role == "assistant") {
        const bool has_space = message.content.starts_with(' ');
        prompt.text += (has_space ? "Assistant:" : "Assistant: ") + message.content + "\n";
      } else {
        return fail("messages: unknown role \"" + message.role +
                    "\"; expected system, user or assistant");
      }
    }
    prompt.text += "Assistant:" + options.opening;
    prompt.tokens = tokenizer_.encode(prompt.text, true);
    return prompt;
  }
  [[nodiscard]] ToolCallForm tool_calls() const override { return ToolCallForm::kNone; }
  [[nodiscard]] std::vector<std::string> stop_strings() const override { return {"\nUser:"}; }
  [[nodiscard]] const std::string& source() const override { return source_; }

 private:
  const Tokenizer& tokenizer_;
  std::string source_;
};

/// U+FDD0, which is no character: put into names of control tokens that a message spells out, so
/// that only the template itself can make control tokens.
constexpr std::string_view kBreaker = "\xEF\xB7\x90";

/// A text without its breakers, and where they were.
struct Unbroken {
  std::string text;
  std::vector<size_t> breaks;
};

Unbroken without_breakers(std::string_view text) {
  Unbroken result;
  for (size_t at = 0;;) {
    const size_t found = text.find(kBreaker, at);
    result.text.append(text.substr(at, found - at));
    if (found == std::string_view::npos) return result;
    result.breaks.push_back(result.text.size());
    at = found + kBreaker.size();
  }
}

Result<OrderedJson> parsed_json(const std::string& text, std::string_view what) {
  auto parsed = OrderedJson::parse(text, nullptr, false);
  if (parsed.is_discarded()) return fail(fmt::format("{}: not valid JSON", what));
  return parsed;
}

/// Templates expect the arguments of calls as objects; OpenAI's API has them as text. What is no
/// JSON stays what the model said.
void arguments_as_objects(OrderedJson& more) {
  const auto calls = more.find("tool_calls");
  if (calls == more.end() || !calls->is_array()) return;
  for (OrderedJson& call : *calls) {
    const bool is_call = call.is_object() && call.contains("function");
    if (!is_call || !call["function"].is_object()) continue;
    const auto arguments = call["function"].find("arguments");
    if (arguments == call["function"].end() || !arguments->is_string()) continue;
    const auto& text = arguments->get_ref<const std::string&>();
    if (!parse_json(text, "arguments")) continue;  // bounded in depth
    *arguments = OrderedJson::parse(text);
  }
}

class JinjaTemplate final : public ChatTemplate {
 public:
  JinjaTemplate(jinja::Template parsed, const Tokenizer& tokenizer)
      : template_(std::move(parsed)), tokenizer_(tokenizer), controls_(tokenizer.control_tokens()) {
    std::erase_if(controls_, [](const auto& control) { return control.first.size() < 2; });
    tool_calls_ = find_tool_calls();
  }

  Result<ChatPrompt> render(const std::vector<ChatMessage>& messages,
                            const ChatPromptOptions& options) const override {
    if (!options.tools.empty() && tool_calls_ == ToolCallForm::kNone) {
      return fail(std::string(kNoPlaceForTools));
    }
    KVCAST_TRY(std::string text, render_text(messages, options.tools));
    text += options.opening;
    Unbroken whole = without_breakers(text);
    ChatPrompt prompt;
    prompt.tokens = tokenizer_.encode(whole.text, {.parse_special = true, .breaks = whole.breaks});
    // Most templates begin with BOS themselves.
    const int32_t bos = tokenizer_.bos_token();
    if (tokenizer_.adds_bos() && (prompt.tokens.empty() || prompt.tokens.front() != bos)) {
      prompt.tokens.insert(prompt.tokens.begin(), bos);
    }
    prompt.text = std::move(whole.text);
    return prompt;
  }
  [[nodiscard]] ToolCallForm tool_calls() const override { return tool_calls_; }
  [[nodiscard]] std::vector<std::string> stop_strings() const override { return {}; }
  [[nodiscard]] const std::string& source() const override { return template_.source(); }

 private:
  /// The conversation as text, breakers in it.
  [[nodiscard]] Result<std::string> render_text(const std::vector<ChatMessage>& messages,
                                                const std::string& tools) const {
    jinja::List list;
    for (const ChatMessage& message : messages) {
      const jinja::Value made(jinja::Map{{"role", jinja::Value(disarmed(message.role))},
                                         {"content", jinja::Value(disarmed(message.content))}});
      if (!message.more.empty()) {
        KVCAST_TRY(OrderedJson parsed, parsed_json(message.more, "messages"));
        if (!parsed.is_object()) return fail("messages: expected an object beside the content");
        arguments_as_objects(parsed);
        KVCAST_TRY(const jinja::Value more, value_of(parsed, 0));
        for (const auto& [name, value] : *more.map()) made.set(name, value);
      }
      list.push_back(made);
    }
    jinja::Value offered = jinja::None{};
    if (!tools.empty()) {
      KVCAST_TRY(const OrderedJson parsed, parsed_json(tools, "tools"));
      KVCAST_TRY(offered, value_of(parsed, 0));
    }
    return template_.render(jinja::Value(jinja::Map{{"messages", jinja::Value(std::move(list))},
                                                    {"add_generation_prompt", jinja::Value(true)},
                                                    {"bos_token", name_of(tokenizer_.bos_token())},
                                                    {"eos_token", name_of(tokenizer_.eos_token())},
                                                    {"tools", std::move(offered)}}));
  }

  /// Tries it: what becomes of a tool, and of a call in an earlier answer.
  [[nodiscard]] ToolCallForm find_tool_calls() const {
    const std::vector<ChatMessage> asked = {{"user", "x"}};
    const auto offered = render_text(asked, R"([{"type": "function", "function": {"name": )"
                                            R"("probe", "parameters": {"type": "object"}}}])");
    if (!offered || offered->find("probe") == std::string::npos) return ToolCallForm::kNone;
    std::vector<ChatMessage> called = asked;
    called.push_back({"assistant", "",
                      R"({"tool_calls": [{"id": "probe00id", "type": "function", )"
                      R"("function": {"name": "probe", "arguments": {"x": 1}}}]})"});
    const auto written = render_text(called, "");
    if (!written) return ToolCallForm::kUnknown;
    std::string text = without_breakers(*written).text;
    std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
    const auto has = [&](std::string_view part) { return text.find(part) != std::string::npos; };
    if (has(R"(<tool_call>{"name":"probe","arguments":{"x":1}}</tool_call>)")) {
      return ToolCallForm::kTagged;
    }
    return has(R"({"name":"probe","parameters":{"x":1}})") ? ToolCallForm::kJson
                                                           : ToolCallForm::kUnknown;
  }

  /// JSON as a template sees it, no name of a control token in it intact.
  [[nodiscard]] Result<jinja::Value> value_of(const OrderedJson& json, int depth) const {
    if (depth > jinja::kMaxDepth) return fail("JSON is nested too deeply");
    if (json.is_string()) return jinja::Value(disarmed(json.get<std::string>()));
    if (json.is_boolean()) return jinja::Value(json.get<bool>());
    if (json.is_number_integer()) return jinja::Value(json.get<int64_t>());
    if (json.is_number()) return jinja::Value(json.get<double>());
    if (json.is_array()) {
      jinja::List list;
      for (const auto& item : json) {
        KVCAST_TRY(jinja::Value value, value_of(item, depth + 1));
        list.push_back(std::move(value));
      }
      return jinja::Value(std::move(list));
    }
    if (!json.is_object()) return jinja::Value(jinja::None{});
    jinja::Map entries;
    for (const auto& [key, item] : json.items()) {
      KVCAST_TRY(jinja::Value value, value_of(item, depth + 1));
      entries.emplace_back(disarmed(key), std::move(value));
    }
    return jinja::Value(std::move(entries));
  }

  [[nodiscard]] jinja::Value name_of(int32_t id) const {
    for (const auto& [name, token] : controls_) {
      if (token == id) return name;
    }
    return "";
  }

  [[nodiscard]] std::string disarmed(std::string text) const {
    text = without_breakers(text).text;
    for (const auto& [name, token] : controls_) {
      for (size_t at = 0; (at = text.find(name, at)) != std::string::npos;) {
        text.insert(at + 1, kBreaker);
        at += kBreaker.size() + name.size();
      }
    }
    return text;
  }

  jinja::Template template_;
  const Tokenizer& tokenizer_;
  std::vector<std::pair<std::string, int32_t>> controls_;
  ToolCallForm tool_calls_ = ToolCallForm::kNone;
};

/// `chat_template` of a tokenizer_config.json: text, or a list of named ones of which "default"
/// counts. Empty if there is none.
Result<std::string> template_in(const std::filesystem::path& file) {
  KVCAST_TRY(const Json config, read_json_object(file));
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array()) {
    for (const Json& named : *found) {
      if (!named.is_object() || named.value("name", Json()) != "default") continue;
      const auto text = named.find("template");
      if (text != named.end() && text->is_string()) return text->get<std::string>();
    }
  }
  return fail(
      fmt::format("{}: chat_template: expected a string, or a list with a template named "
                  "\"default\"",
                  file.string()));
}

}  // namespace

std::unique_ptr<ChatTemplate> ChatTemplate::plain(const Tokenizer& tokenizer) {
  return std::make_unique<PlainTemplate>(tokenizer);
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::from_source(std::string source,
                                                                const Tokenizer& tokenizer) {
  KVCAST_TRY(jinja::Template parsed, jinja::Template::parse(std::move(source)));
  return std::make_unique<JinjaTemplate>(std::move(parsed), tokenizer);
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::load(const std::filesystem::path& directory,
                                                         const Tokenizer& tokenizer) {
  if (is_bundle(directory)) {
    KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(directory));
    return load(manifest.base, tokenizer);
  }
  std::error_code ignored;
  std::string source;
  auto file = directory / "chat_template.jinja";
  if (std::filesystem::exists(file, ignored)) {
    KVCAST_TRY(source, read_text_file(file));
  } else if (file = directory / "tokenizer_config.json"; std::filesystem::exists(file, ignored)) {
    KVCAST_TRY(source, template_in(file));
  }
  if (source.empty()) {
    file = directory;
    KVCAST_TRY(source, gguf_chat_template(directory));
  }
  if (source.empty()) return plain(tokenizer);
  auto loaded = from_source(std::move(source), tokenizer);
  if (!loaded)
    return fail(fmt::format("{}: chat template: {}", file.string(), loaded.error().message));
  return loaded;
}

}  // namespace kvcast

// From a conversation to prompt tokens: a model's own chat template, or a plain default.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/chat.h"
#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// How a template writes the tool calls of earlier answers, which is how its model makes new ones.
enum class ToolCallForm {
  kNone,     ///< it takes no tools
  kUnknown,  ///< it takes tools, but calls are written in a way that is not known here
  kTagged,   ///< <tool_call>{"name": ..., "arguments": {...}}</tool_call>, as Hermes and Qwen
  kJson,     ///< {"name": ..., "parameters": {...}}, as Llama 3
};

/// What is said where tools cannot be offered.
inline constexpr std::string_view kNoPlaceForTools =
    "tools: this model's chat template has no place for them";
inline constexpr std::string_view kUnknownToolCalls =
    "tools: this model's way of writing calls is not known here; known are <tool_call>{\"name\": "
    "..., \"arguments\": ...}</tool_call> and {\"name\": ..., \"parameters\": ...}";

/// Immutable; any number of threads.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  /// The template that the model directory or bundle brings: `chat_template.jinja`, else
  /// `chat_template` in `tokenizer_config.json`, else a GGUF file's; the plain default if there is
  /// none. Errors name the file and the place in the template.
  static Result<std::unique_ptr<ChatTemplate>> load(const std::filesystem::path& directory,
                                                    const Tokenizer& tokenizer);
  /// A Jinja template. Errors name the line.
  static Result<std::unique_ptr<ChatTemplate>> from_source(std::string source,
                                                           const Tokenizer& tokenizer);
  /// "System text\n\nUser: ...\nAssistant: ...\nUser: ...\nAssistant:".
  static std::unique_ptr<ChatTemplate> plain(const Tokenizer& tokenizer);

  /// The whole conversation and the opening of the assistant's next message. Names of control
  /// tokens in messages and tools stay plain text. Errors: what the template refuses
  /// (raise_exception), bounds exceeded, tools where it has no place for them.
  virtual Result<ChatPrompt> render(const std::vector<ChatMessage>& messages,
                                    const ChatPromptOptions& options) const = 0;
  [[nodiscard]] Result<ChatPrompt> render(const std::vector<ChatMessage>& messages) const {
    return render(messages, {});
  }
  [[nodiscard]] virtual ToolCallForm tool_calls() const = 0;
  /// Where an answer ends beside the end-of-text token.
  [[nodiscard]] virtual std::vector<std::string> stop_strings() const = 0;
  /// The Jinja source; empty for the plain default.
  [[nodiscard]] virtual const std::string& source() const = 0;
};

}  // namespace kvcast

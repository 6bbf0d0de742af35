// From a conversation to prompt tokens: a model's own chat template, or a plain default.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

struct ChatMessage {
  std::string role;     ///< "system", "user", "assistant", ...
  std::string content;  ///< UTF-8
  /// What else it says, as the text of a JSON object: "tool_calls", "tool_call_id", "name",
  /// "reasoning_content", ... Empty: nothing. A "content" in it counts instead of the one above.
  std::string more = {};
};

/// What a template is told beside the messages.
struct ChatTemplateOptions {
  std::string tools;  ///< the text of a JSON list of tools, as OpenAI's API has them; empty: none
  bool add_generation_prompt = true;  ///< ends with the opening of the assistant's next message
  std::string variables;  ///< the text of a JSON object (chat_template_kwargs); empty: none
};

/// Why a conversation cannot be rendered.
struct [[nodiscard]] ChatError : Error {
  /// The template refuses these messages (raise_exception); otherwise it is the template that is
  /// wrong, or not understood, and no other messages would help.
  bool is_refusal = false;
};
template <typename T>
using ChatResult = tl::expected<T, ChatError>;

/// What a conversation becomes.
struct ChatPrompt {
  std::string text;             ///< as rendered, control tokens by name
  std::vector<int32_t> tokens;  ///< control tokens of the template as their ids, BOS first
};

/// Immutable; any number of threads.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  /// The template that the model directory or bundle brings: `chat_template.jinja`, else
  /// `chat_template` in `tokenizer_config.json`; the plain default if there is neither. A template
  /// that cannot be parsed is no error here, for it stops nothing but chat: render() says what is
  /// wrong with it, and so does problem().
  static Result<std::unique_ptr<ChatTemplate>> load(const std::filesystem::path& directory,
                                                    const Tokenizer& tokenizer);
  /// A Jinja template. Errors name the line.
  static Result<std::unique_ptr<ChatTemplate>> from_source(std::string source,
                                                           const Tokenizer& tokenizer);
  /// The same, but what is wrong with the source is left to render() and problem(); `where` names
  /// it there. An empty source is the plain default.
  static std::unique_ptr<ChatTemplate> from_model(std::string source, std::string_view where,
                                                  const Tokenizer& tokenizer);
  /// "System text\n\nUser: ...\nAssistant: ...\nUser: ...\nAssistant:".
  static std::unique_ptr<ChatTemplate> plain(const Tokenizer& tokenizer);

  /// The whole conversation, by default with the opening of the assistant's next message. Names of
  /// control tokens in what messages and tools say stay plain text.
  virtual ChatResult<ChatPrompt> render(const std::vector<ChatMessage>& messages,
                                        const ChatTemplateOptions& options) const = 0;
  [[nodiscard]] ChatResult<ChatPrompt> render(const std::vector<ChatMessage>& messages) const {
    return render(messages, ChatTemplateOptions());
  }
  /// Why no conversation can be rendered; empty if all is well.
  [[nodiscard]] virtual std::string problem() const { return {}; }
  /// Where an answer ends beside the end-of-text token.
  [[nodiscard]] virtual std::vector<std::string> stop_strings() const = 0;
  /// The Jinja source; empty for the plain default.
  [[nodiscard]] virtual const std::string& source() const = 0;
};

}  // namespace kvcast

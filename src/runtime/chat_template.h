// From a conversation to prompt tokens: a model's own chat template, or a plain default.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kvcast/chat.h"
#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

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
  /// tokens in a message's content stay plain text. Errors: what the template refuses
  /// (raise_exception), bounds exceeded.
  virtual Result<ChatPrompt> render(const std::vector<ChatMessage>& messages) const = 0;
  /// Where an answer ends beside the end-of-text token.
  [[nodiscard]] virtual std::vector<std::string> stop_strings() const = 0;
  /// The Jinja source; empty for the plain default.
  [[nodiscard]] virtual const std::string& source() const = 0;
};

}  // namespace kvcast

// A conversation written the way a model was trained on.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/model.h"
#include "kvcast/result.h"

namespace kvcast {

class ChatTemplate;

struct ChatMessage {
  std::string role;     ///< "system", "user", "assistant", ...
  std::string content;  ///< UTF-8
  /// What else it says, as OpenAI's API has it, the text of a JSON object: "tool_calls" of an
  /// assistant; "tool_call_id" and "name" of a tool's result. Empty: nothing.
  std::string more = {};
};

/// What a prompt has beside the messages.
struct ChatPromptOptions {
  /// Tools that the answer may call, as OpenAI's API has them: the text of a JSON list. Empty:
  /// none.
  std::string tools = {};
  /// "auto": the model calls one if it likes; "required": the answer calls one; a tool's name: it
  /// calls that; "none": as if there were no tools.
  std::string tool_choice = "auto";
  /// What the assistant's next message begins with, so that the answer goes on from there.
  std::string opening = {};
};

/// What a conversation becomes.
struct ChatPrompt {
  std::string text;             ///< as rendered, control tokens by name
  std::vector<int32_t> tokens;  ///< control tokens of the template as their ids, BOS first
};

/// A model's own chat template, or a plain default. Immutable: share it between threads. Keeps the
/// model alive.
class ChatFormat {
 public:
  /// Errors: the model has no tokenizer, or its template cannot be read; they name the file.
  static Result<ChatFormat> of(std::shared_ptr<const Model> model);

  /// The whole conversation and the opening of the assistant's next message. Errors: what the
  /// template refuses; tools for a template that has no place for them, or whose way of writing
  /// calls is not known here.
  [[nodiscard]] Result<ChatPrompt> render(std::span<const ChatMessage> messages,
                                          const ChatPromptOptions& options = {}) const;
  /// The message that an answer's text is, to go on with: what it says apart from the tools that it
  /// calls, whose "arguments" are text as the model wrote it, perhaps no whole JSON where the
  /// answer was cut. `options`: those of the prompt.
  [[nodiscard]] Result<ChatMessage> read_answer(std::string_view text,
                                                const ChatPromptOptions& options = {}) const;
  /// Where an answer ends beside the end-of-text token: for GenerateOptions::stop.
  [[nodiscard]] std::vector<std::string> stop_strings() const;

 private:
  ChatFormat(std::shared_ptr<const Model> model, std::shared_ptr<const ChatTemplate> written);
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const ChatTemplate> template_;
};

}  // namespace kvcast

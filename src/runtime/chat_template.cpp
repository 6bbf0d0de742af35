#include "runtime/chat_template.h"

namespace kvcast {
namespace {

/// What base models, which know no special tokens for turns, continue sensibly.
class PlainTemplate final : public ChatTemplate {
 public:
  explicit PlainTemplate(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  Result<ChatPrompt> render(const std::vector<ChatMessage>& messages) const override {
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
    prompt.text += "Assistant:";
    prompt.tokens = tokenizer_.encode(prompt.text, true);
    return prompt;
  }
  [[nodiscard]] std::vector<std::string> stop_strings() const override { return {"\nUser:"}; }
  [[nodiscard]] const std::string& source() const override { return source_; }

 private:
  const Tokenizer& tokenizer_;
  std::string source_;
};

}  // namespace

std::unique_ptr<ChatTemplate> ChatTemplate::plain(const Tokenizer& tokenizer) {
  return std::make_unique<PlainTemplate>(tokenizer);
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::load(const std::filesystem::path& /*directory*/,
                                                         const Tokenizer& tokenizer) {
  return plain(tokenizer);
}

}  // namespace kvcast

#include <utility>

#include "base/macros.h"
#include "kvcast/chat.h"
#include "runtime/chat_template.h"
#include "runtime/model_impl.h"

namespace kvcast {

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
  return template_->render({messages.begin(), messages.end()}, options);
}

std::vector<std::string> ChatFormat::stop_strings() const { return template_->stop_strings(); }

}  // namespace kvcast

// The rules of SentencePieceProcessor::Decode, applied one token at a time.
#include "base/utf8.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer, Start start)
    : tokenizer_(&tokenizer), at_start_(start == Start::kNewText) {}

std::string IncrementalDetokenizer::push(int32_t token) {
  const auto& model = *tokenizer_->implementation_;
  if (!model.contains(token)) return {};
  if (model.processor.IsByte(token)) {
    pending_ += model.surface(token);
    return take_settled_bytes();
  }
  // Bytes can only be completed by bytes that follow directly.
  std::string text = flush();
  text += piece_text(token);
  if (!text.empty()) at_start_ = false;
  return text;
}

std::string IncrementalDetokenizer::flush() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  if (!text.empty()) at_start_ = false;
  return text;
}

std::string IncrementalDetokenizer::take_settled_bytes() {
  const size_t settled = settled_utf8_prefix(pending_);
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, settled));
  pending_.erase(0, settled);
  if (!text.empty()) at_start_ = false;
  return text;
}

std::string IncrementalDetokenizer::piece_text(int32_t token) {
  const auto& model = *tokenizer_->implementation_;
  std::string text = model.surface(token);
  if (dropped_a_space_) at_start_ = false;
  dropped_a_space_ = false;
  const bool is_piece = !model.processor.IsControl(token) && !model.processor.IsUnknown(token);
  if (at_start_ && is_piece && model.drops_first_space && text.starts_with(' ')) {
    text.erase(0, 1);
    dropped_a_space_ = !model.drops_all_spaces;
  }
  return text;
}

}  // namespace kvcast

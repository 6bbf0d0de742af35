// The rules of SentencePieceProcessor::Decode, applied one token at a time; a byte-level vocabulary
// is the case in which every token is bytes.
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer, Start start)
    : vocabulary_(&tokenizer.vocabulary()), at_start_(start == Start::kNewText) {}

std::string IncrementalDetokenizer::push(int32_t token) {
  if (!vocabulary_->contains(token)) return {};
  const TokenKind kind = vocabulary_->kind(token);
  const std::string_view bytes = vocabulary_->bytes(token);
  if (kind == TokenKind::kByte || (vocabulary_->byte_level && kind == TokenKind::kText)) {
    pending_ += vocabulary_->byte_level ? without_leading_space(bytes, kind) : bytes;
    return take_settled_bytes();
  }
  // Bytes can only be completed by bytes that follow directly.
  std::string text = flush();
  text += without_leading_space(bytes, kind);
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

std::string_view IncrementalDetokenizer::without_leading_space(std::string_view text,
                                                               TokenKind kind) {
  if (dropped_a_space_) at_start_ = false;
  dropped_a_space_ = false;
  const LeadingSpace rule = vocabulary_->leading_space;
  if (at_start_ && kind == TokenKind::kText && rule != LeadingSpace::kKept &&
      text.starts_with(' ')) {
    text.remove_prefix(1);
    dropped_a_space_ = rule == LeadingSpace::kFirstDropped;
  }
  return text;
}

std::string Tokenizer::decode(std::span<const int32_t> tokens) const {
  IncrementalDetokenizer detokenizer(*this, IncrementalDetokenizer::Start::kNewText);
  std::string text;
  for (const int32_t token : tokens) text += detokenizer.push(token);
  return text + detokenizer.flush();
}

}  // namespace kvcast

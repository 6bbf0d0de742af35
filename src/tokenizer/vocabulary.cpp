#include "tokenizer/vocabulary.h"

namespace kvcast {

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  bytes_.reserve(bytes);
  ends_.reserve(tokens + 1);
  kinds_.reserve(tokens);
}

void Vocabulary::add(std::string_view bytes, TokenKind kind) {
  bytes_.append(bytes);
  ends_.push_back(bytes_.size());
  kinds_.push_back(kind);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    result.append(text.substr(at, found - at));
    if (found == std::string_view::npos) return result;
    result.append(to);
    at = found + from.size();
  }
}

}  // namespace kvcast

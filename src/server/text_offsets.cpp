#include "server/text_offsets.h"

#include <algorithm>

#include "base/utf8.h"

namespace kvcast {

TextOffsets::TextOffsets(std::string_view text, bool has_added_space)
    : known_characters_(count_characters(text)), drop_space_(has_added_space) {}

int64_t TextOffsets::place(std::string_view bytes) {
  if (bytes.empty()) return characters_;  // a control token
  if (drop_space_ && bytes.starts_with(' ')) bytes.remove_prefix(1);
  drop_space_ = false;
  const bool goes_on = !bytes.empty() && (static_cast<unsigned char>(bytes.front()) & 0xC0) == 0x80;
  if (!goes_on) {  // what was begun never becomes a character
    characters_ += std::ssize(begun_);
    begun_.clear();
  }
  const int64_t begin = characters_;
  begun_ += bytes;
  std::string_view rest = begun_;
  while (!rest.empty()) {
    const Utf8Step step = first_utf8_character(rest);
    if (step.kind == Utf8Kind::kIncomplete) break;
    ++characters_;  // a byte that belongs to no character is shown as one, U+FFFD
    rest.remove_prefix(step.bytes);
  }
  begun_.erase(0, begun_.size() - rest.size());
  return begin;
}

void TextOffsets::end_known_text() {
  characters_ = known_characters_;
  begun_.clear();
  drop_space_ = false;
}

int64_t count_characters(std::string_view text) {
  return std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

}  // namespace kvcast

#include "tokenizer/characters.h"

#include <utf8proc.h>

#include "tokenizer/newer_characters.h"

namespace kvcast {
namespace {

struct Character {
  utf8proc_int32_t code = -1;
  size_t bytes = 0;
};

Character first(std::string_view text) {
  Character character;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &character.code);
  character.bytes = length > 0 ? static_cast<size_t>(length) : 0;
  return character;
}

Character last(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    --begin;
    if ((static_cast<unsigned char>(text[begin]) & 0xC0U) != 0x80) break;
  }
  return first(text.substr(begin));
}

bool is_word(utf8proc_int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_CN: {
      const std::string_view newer = newer_category(static_cast<char32_t>(code));
      return newer.starts_with('L') || newer.starts_with('M') || newer == "Nd";
    }
    case UTF8PROC_CATEGORY_SO:  // letters in circles and squares are alphabetic
      return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
             (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
    default:
      return code == 0x200C || code == 0x200D;  // joiners
  }
}

bool is_space(utf8proc_int32_t code) {
  if ((code >= 0x09 && code <= 0x0D) || code == 0x85) return true;
  const auto category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP;
}

}  // namespace

bool begins_with_word(std::string_view text) { return !text.empty() && is_word(first(text).code); }
bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last(text).code); }

size_t leading_space_bytes(std::string_view text) {
  size_t bytes = 0;
  while (bytes < text.size()) {
    const Character character = first(text.substr(bytes));
    if (character.bytes == 0 || !is_space(character.code)) break;
    bytes += character.bytes;
  }
  return bytes;
}

size_t trailing_space_begin(std::string_view text) {
  while (!text.empty()) {
    const Character character = last(text);
    if (character.bytes == 0 || !is_space(character.code)) break;
    text.remove_suffix(character.bytes);
  }
  return text.size();
}

}  // namespace kvcast

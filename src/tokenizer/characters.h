// Classes of characters as Unicode has them, at the ends of valid UTF-8.
#pragma once

#include <cstddef>
#include <string_view>

namespace kvcast {

/// Whether the character at that end may be part of a word: a letter, mark, digit or connector.
[[nodiscard]] bool begins_with_word(std::string_view text);
[[nodiscard]] bool ends_with_word(std::string_view text);

/// Bytes of white space that `text` begins with.
[[nodiscard]] size_t leading_space_bytes(std::string_view text);
/// Where the white space that `text` ends with begins.
[[nodiscard]] size_t trailing_space_begin(std::string_view text);

}  // namespace kvcast

// UTF-8 from outside: where a character ends, what can still be completed, what never will be.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kvcast {

/// U+FFFD, which stands for each byte that belongs to no character.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Kind {
  kCharacter,   ///< a whole character
  kIncomplete,  ///< the text ends inside what may still become a character
  kInvalid,     ///< no continuation can make a character of the first byte
};

struct Utf8Step {
  Utf8Kind kind = Utf8Kind::kInvalid;
  size_t bytes = 0;  ///< kCharacter: its length; kIncomplete: all that is left; kInvalid: 1
};

/// What `text` (not empty) begins with. Overlong forms, surrogates and anything above U+10FFFF are
/// invalid.
[[nodiscard]] Utf8Step first_utf8_character(std::string_view text);

[[nodiscard]] bool is_valid_utf8(std::string_view text);

/// Length of the longest prefix that is whole characters alone.
[[nodiscard]] size_t valid_utf8_prefix(std::string_view text);

/// Length of the longest prefix that does not end inside a character that more bytes could
/// complete. Invalid bytes before that count as settled.
[[nodiscard]] size_t settled_utf8_prefix(std::string_view text);

/// Every byte that belongs to no character becomes U+FFFD, as SentencePiece does it.
[[nodiscard]] std::string replace_invalid_utf8(std::string_view text);

}  // namespace kvcast

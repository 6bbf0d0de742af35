#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvcast {

/// Where the tokens of a text begin in it, in characters. A token that begins within a character
/// has that character's place. Fed with every token in order, however the text is sent.
class TextOffsets {
 public:
  /// `text`: what the first tokens encode. `has_added_space`: their bytes begin with a space that a
  /// tokenizer put before it, which does not count.
  TextOffsets(std::string_view text, bool has_added_space);
  TextOffsets() = default;

  /// The place of the next token, which adds these bytes.
  int64_t place(std::string_view bytes);
  /// The known text is over: what follows begins at its end.
  void end_known_text();

 private:
  std::string begun_;  // bytes of a character that is not complete yet
  int64_t characters_ = 0, known_characters_ = 0;
  bool drop_space_ = false;
};

/// Characters (code points) of valid UTF-8.
int64_t count_characters(std::string_view text);

}  // namespace kvcast

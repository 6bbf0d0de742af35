// Characters that Unicode has had since version 15. PCRE2 in Debian 12 knows version 14, while
// Oniguruma, with which PyPI's `tokenizers` cuts words, knows version 16.
#pragma once

#include <string>
#include <string_view>

namespace kvcast {

/// The newer characters of a general category ("L", "Nd") or of the script Han, as they may stand
/// in a class of a regular expression; empty if there are none.
[[nodiscard]] std::string newer_characters(std::string_view property);

/// The general category of one of them; empty for any other character.
[[nodiscard]] std::string_view newer_category(char32_t character);

/// Whether `text`, valid UTF-8, has one of them.
[[nodiscard]] bool has_newer_characters(std::string_view text);

}  // namespace kvcast

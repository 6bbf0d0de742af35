// Oniguruma's regular expressions, in which tokenizers are described, as PCRE2 reads them.
#pragma once

#include <string>
#include <string_view>

#include "kvcast/result.h"

namespace kvcast {

/// `pattern` for PCRE2 with PCRE2_UTF, PCRE2_UCP and PCRE2_MULTILINE. What the two read differently
/// is translated (\s, \w, \h, \b, scripts, (?m), {,2}) or refused (sets of sets); `where` names the
/// source in messages. `newer`: the classes have the characters of newer_characters.h too.
Result<std::string> translate_regex(std::string_view pattern, std::string_view where, bool newer);

}  // namespace kvcast

// What is done to a text before it is cut into words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/regex.h"

namespace kvcast {

struct NormalizerStep {
  enum class Kind {
    kCanonical,      ///< NFC
    kCompatibility,  ///< NFKC
    kPrepend,        ///< `text` goes before it, unless it is empty
    kReplace,        ///< every match of `regex` becomes `text`
  };
  Kind kind = Kind::kCanonical;
  std::vector<Regex> regex;  ///< one for kReplace, else none
  std::string text;
};

/// Steps in order; none leaves a text as it is.
struct Normalizer {
  std::vector<NormalizerStep> steps;

  /// `text` is valid UTF-8, and so is the result: `text` itself where nothing changes, else
  /// something in `buffer`.
  [[nodiscard]] std::string_view apply(std::string_view text, RegexMatcher& matcher,
                                       std::string& buffer) const;
};

}  // namespace kvcast

// Cuts a text into the words that are tokenized apart from each other.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/regex.h"

namespace kvcast {

struct PreTokenizerStep {
  enum class Kind {
    kSplit,    ///< at the matches of `regex`
    kPrepend,  ///< `text` goes before each piece that does not begin with it
    kSpaces,   ///< each space becomes `text`
  };
  enum class Matches {  ///< what becomes of the matches of a kSplit
    kIsolated,
    kRemoved,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous,  ///< neighbouring matches are one piece
  };
  Kind kind = Kind::kSplit;
  std::vector<Regex> regex;  ///< one for kSplit, else none
  Matches matches = Matches::kIsolated;
  bool invert = false;  ///< what lies between the matches counts as the matches
  std::string text;
  bool only_at_start = false;  ///< kPrepend: only to what the whole text begins with
};

/// Steps in order, each on the pieces of the one before; none leaves one piece.
struct PreTokenizer {
  std::vector<PreTokenizerStep> steps;

  using Sink = std::function<void(std::string_view)>;
  /// Words are views of `text` where no step changes it, and else live as long as the call to
  /// `sink`. `at_start`: nothing of the whole text comes before `text`.
  void apply(std::string_view text, bool at_start, RegexMatcher& matcher, const Sink& sink) const;
};

}  // namespace kvcast

// How byte-level tokenizers of known families cut text into words, by the name that GGUF files
// give.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvcast {

struct WordPatterns {
  std::vector<std::string_view> names;   ///< in tokenizer.ggml.pre
  std::vector<std::string_view> splits;  ///< regexes; each splits the pieces of the one before
  bool canonical = false;                ///< text is brought to NFC first
  bool ignore_merges = false;            ///< a word that is a token is that token
  bool adds_bos = false;                 ///< unless the file says otherwise
};

/// Null if the name is not known.
[[nodiscard]] const WordPatterns* find_word_patterns(std::string_view name);

/// All names, for messages.
[[nodiscard]] std::string known_word_patterns();

/// What tokenizer.json's Digits stands for.
extern const std::string_view kDigit;

/// GPT-2's words, which tokenizer.json's ByteLevel stands for.
extern const std::string_view kGpt2Words;

}  // namespace kvcast

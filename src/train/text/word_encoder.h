// Encodes much text fast: word by word, most words from a cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace kvcast::train {

/// How many tokens Tokenizer::encode gives for a line break alone, if the tokens of every text are
/// those of its words one after another, and 0 otherwise. A word is a run of spaces and what
/// follows up to the next space or line break. It holds for BPE models with no piece that crosses
/// from one word into the next (SentencePiece with split_by_whitespace) and no normalisation that
/// looks beyond a word; all of this is checked.
size_t line_break_tokens(const Tokenizer& tokenizer);

/// Tokenizer::encode's twin for one thread. The tokenizer must outlive it.
class WordEncoder {
 public:
  /// `line_break_tokens` as above; with 0 every text is encoded whole.
  WordEncoder(const Tokenizer& tokenizer, size_t line_break_tokens)
      : tokenizer_(tokenizer), line_break_tokens_(line_break_tokens) {}

  /// Appends what tokenizer.encode(text, false) gives.
  void encode(std::string_view text, std::vector<int32_t>& ids);

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return std::hash<std::string_view>{}(word); }
  };
  struct Span {
    size_t first, count;  // of cached_ids_
  };
  /// Appends the ids of a word in the middle of a text.
  void encode_word(std::string_view word, std::vector<int32_t>& ids);

  const Tokenizer& tokenizer_;
  size_t line_break_tokens_;
  std::unordered_map<std::string, Span, Hash, std::equal_to<>> cache_;
  std::vector<int32_t> cached_ids_;
  std::string after_line_break_;
};

}  // namespace kvcast::train

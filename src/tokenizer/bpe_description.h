// A BPE tokenizer as data, whether a tokenizer.json or a GGUF file says it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace kvcast {

/// Views are of the source, which has to live until the tokenizer is made.
struct BpeDescription {
  std::string source;  ///< the file, for messages

  struct Token {
    std::string_view text;  ///< as the model writes it
    TokenKind kind = TokenKind::kUnused;
  };
  std::vector<Token> tokens;      ///< by id; holes are unused
  std::vector<AddedToken> added;  ///< their ids may lie beyond `tokens`
  bool added_are_normal = false;  ///< their texts are written as the normalizer leaves text
  /// Pairs to be merged, the first ones first...
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  /// ... or, as SentencePiece has it, any two that make a token, the best score first; by id.
  std::vector<float> scores;

  bool byte_level = false;     ///< tokens are written in the byte alphabet
  bool byte_fallback = false;  ///< characters without a token become byte tokens ("<0xE2>")
  bool ignore_merges = false;  ///< a word that is a token is that token
  bool fuse_unknown = false;   ///< neighbouring unknown characters are one unknown token
  int32_t unknown = -1;        ///< -1: what has no token is left out

  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  LeadingSpace leading_space = LeadingSpace::kKept;
  bool space_symbol = false;  ///< tokens write a space as U+2581
  SpecialTokens special;
};

}  // namespace kvcast

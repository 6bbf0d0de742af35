// What is behind Tokenizer: the library's processor and how its decoder treats leading spaces.
// Only for the .cpp files of this folder.
#pragma once

#include <sentencepiece_processor.h>

#include <string>

#include "tokenizer/tokenizer.h"

namespace kvcast {

struct Tokenizer::Implementation {
  sentencepiece::SentencePieceProcessor processor;
  // The model file has flags for these, but the library's public headers do not show them, so
  // learn_leading_spaces() asks the decoder itself.
  bool drops_first_space = true;  ///< the first piece of a text loses one leading space
  bool drops_all_spaces = false;  ///< so do the following ones until there is text

  [[nodiscard]] bool contains(int32_t token) const {
    return token >= 0 && token < processor.GetPieceSize();
  }
  /// Text of one token of the vocabulary in the middle of a text.
  [[nodiscard]] std::string surface(int32_t token) const;
  void learn_leading_spaces();
};

/// How SentencePiece writes a space inside pieces: U+2581.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

}  // namespace kvcast

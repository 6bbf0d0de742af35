#include "tokenizer/sentencepiece_model.h"

#include <charconv>

namespace kvcast {
namespace {

std::string decode_ids(const sentencepiece::SentencePieceProcessor& processor,
                       const std::vector<int>& ids) {
  std::string text;
  (void)processor.Decode(ids, &text);
  return text;
}

std::string with_spaces(std::string_view piece) {
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    const size_t symbol = piece.find(kSpaceSymbol, at);
    text.append(piece.substr(at, symbol - at));
    if (symbol == std::string_view::npos) break;
    text.push_back(' ');
    at = symbol + kSpaceSymbol.size();
  }
  return text;
}

}  // namespace

std::string Tokenizer::Implementation::surface(int32_t token) const {
  const std::string& piece = processor.IdToPiece(token);
  if (processor.IsControl(token)) return {};
  if (processor.IsUnknown(token)) return decode_ids(processor, {token});
  if (processor.IsByte(token)) {  // "<0xE2>", checked by the library on loading
    unsigned byte = 0;
    std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
    return std::string(1, static_cast<char>(byte));
  }
  return with_spaces(piece);
}

void Tokenizer::Implementation::learn_leading_spaces() {
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const std::string& piece = processor.IdToPiece(id);
    if (!piece.starts_with(kSpaceSymbol) || processor.IsControl(id) || processor.IsUnknown(id)) {
      continue;
    }
    drops_first_space = decode_ids(processor, {id}) != with_spaces(piece);
    // Only a lone space can lose its own space and leave the text empty.
    if (piece == kSpaceSymbol) {
      drops_all_spaces = drops_first_space && decode_ids(processor, {id, id}).empty();
      return;
    }
  }
}

}  // namespace kvcast

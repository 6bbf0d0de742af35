#include "tokenizer/sentencepiece_tokenizer.h"

#include <fmt/format.h>

#include <charconv>

#include "base/utf8.h"
#include "tokenizer/digest.h"

namespace kvcast {
namespace {

std::string decode_ids(const sentencepiece::SentencePieceProcessor& processor,
                       const std::vector<int>& ids) {
  std::string text;
  (void)processor.Decode(ids, &text);
  return text;
}

/// The model file has flags for this, but the library's public headers do not show them: so the
/// decoder itself is asked.
LeadingSpace leading_space_rule(const sentencepiece::SentencePieceProcessor& processor) {
  auto rule = LeadingSpace::kFirstDropped;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    const std::string& piece = processor.IdToPiece(id);
    if (!piece.starts_with(kSpaceSymbol) || processor.IsControl(id) || processor.IsUnknown(id)) {
      continue;
    }
    const bool drops = decode_ids(processor, {id}) != replace_all(piece, kSpaceSymbol, " ");
    rule = drops ? LeadingSpace::kFirstDropped : LeadingSpace::kKept;
    // Only a lone space can lose its own space and leave the text empty.
    if (piece == kSpaceSymbol) {
      return drops && decode_ids(processor, {id, id}).empty() ? LeadingSpace::kAllDropped : rule;
    }
  }
  return rule;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::make(std::string_view contents,
                                                                std::string source) {
  const auto refuse = [&](std::string_view reason) {
    return fail(fmt::format("{}: expected a SentencePiece model: {}", source, reason));
  };
  std::unique_ptr<SentencePieceTokenizer> made(new SentencePieceTokenizer());
  auto& processor = made->processor_;
  try {
    if (const auto status = processor.LoadFromSerializedProto(contents); !status.ok()) {
      return refuse(status.message());
    }
  } catch (const std::exception& error) {
    return refuse(error.what());
  }
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (!is_valid_utf8(processor.IdToPiece(id))) {
      return refuse(fmt::format("piece {} is not valid UTF-8", id));
    }
  }
  made->fill_vocabulary();
  made->special_.bos = processor.bos_id();
  made->special_.eos = processor.eos_id();
  if (processor.bos_id() >= 0) made->special_.before = {processor.bos_id()};
  made->source_ = std::move(source);
  Digest digest;
  digest.add(contents);
  made->digest_ = digest.value();
  return std::unique_ptr<Tokenizer>(std::move(made));
}

void SentencePieceTokenizer::fill_vocabulary() {
  vocabulary_.leading_space = leading_space_rule(processor_);
  for (int32_t id = 0; id < processor_.GetPieceSize(); ++id) {
    TokenKind kind = TokenKind::kText;
    if (processor_.IsControl(id)) kind = TokenKind::kControl;
    if (processor_.IsUnknown(id)) kind = TokenKind::kUnknown;
    if (processor_.IsByte(id)) kind = TokenKind::kByte;
    vocabulary_.add(surface(id), kind);
    if (kind == TokenKind::kControl) {
      added_.add({.text = processor_.IdToPiece(id), .id = id, .special = true});
    }
  }
}

std::string SentencePieceTokenizer::surface(int32_t token) const {
  const std::string& piece = processor_.IdToPiece(token);
  if (processor_.IsControl(token)) return {};
  if (processor_.IsUnknown(token)) return decode_ids(processor_, {token});
  if (processor_.IsByte(token)) {  // "<0xE2>", checked by the library on loading
    unsigned byte = 0;
    std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16);
    return std::string(1, static_cast<char>(byte));
  }
  return replace_all(piece, kSpaceSymbol, " ");
}

void SentencePieceTokenizer::encode_segments(std::span<const TextSegment> segments,
                                             std::vector<int32_t>& tokens) const {
  std::vector<int> pieces;
  for (const TextSegment& segment : segments) {
    if (segment.id >= 0) {
      tokens.push_back(segment.id);
      continue;
    }
    pieces.clear();
    (void)processor_.Encode(segment.text, &pieces);  // fails only if no model is loaded
    tokens.insert(tokens.end(), pieces.begin(), pieces.end());
  }
}

float SentencePieceTokenizer::piece_score(int32_t token) const {
  return vocabulary_.contains(token) ? processor_.GetScore(token) : 0.0F;
}

}  // namespace kvcast

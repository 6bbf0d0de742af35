// tokenizer.model, through the SentencePiece library.
#pragma once

#include <sentencepiece_processor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// `contents` of the file `source`. BOS comes before a text if the model has one.
  static Result<std::unique_ptr<Tokenizer>> make(std::string_view contents, std::string source);

  [[nodiscard]] std::string_view type() const override { return "SentencePiece"; }
  [[nodiscard]] float piece_score(int32_t token) const override;

 private:
  SentencePieceTokenizer() = default;
  void encode_segments(std::span<const TextSegment> segments,
                       std::vector<int32_t>& tokens) const override;
  [[nodiscard]] std::string surface(int32_t token) const;
  void fill_vocabulary();

  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace kvcast

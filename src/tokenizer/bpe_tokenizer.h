// A tokenizer made from a BpeDescription.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/bpe_description.h"
#include "tokenizer/bpe_model.h"

namespace kvcast {

class BpeTokenizer final : public Tokenizer {
 public:
  /// Errors name the description's source and what is wrong in it.
  static Result<std::unique_ptr<Tokenizer>> make(const BpeDescription& description);

  [[nodiscard]] std::string_view type() const override { return "BPE"; }

 private:
  friend class BpeBuilder;
  BpeTokenizer() = default;
  void encode_segments(std::span<const TextSegment> segments,
                       std::vector<int32_t>& tokens) const override;

  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  AddedTokens added_after_normalizing_;
};

}  // namespace kvcast

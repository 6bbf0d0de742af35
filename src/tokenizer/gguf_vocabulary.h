// The tokenizer that a GGUF file describes in its metadata.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// `tokenizer.ggml.*` as it stands in the file; views have to live until the tokenizer is made.
struct GgufVocabulary {
  std::string source;  ///< the file, for messages
  std::string model;   ///< "gpt2" (byte-level BPE), "llama" (SentencePiece BPE)
  std::string pre{};   ///< how gpt2 cuts words: "qwen2", "llama-bpe", ...; empty: "default"
  std::vector<std::string_view> tokens{};
  std::vector<float> scores{};             ///< llama: one per token
  std::vector<int64_t> token_types{};      ///< GGUF's numbers; empty: all are normal
  std::vector<std::string_view> merges{};  ///< gpt2: "left right"
  std::optional<int64_t> bos{}, eos{}, unknown{};
  std::optional<bool> add_bos{}, add_eos{}, add_space_prefix{};
};

Result<std::unique_ptr<Tokenizer>> make_tokenizer(const GgufVocabulary& vocabulary);

}  // namespace kvcast

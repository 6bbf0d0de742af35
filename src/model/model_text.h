// What turns text into a model's tokens: its tokenizer and chat template, wherever they lie.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "kvcast/result.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// What a directory converted from a GGUF file keeps of that file's metadata.
inline constexpr const char* kGgufTokenizer = "tokenizer.gguf";

/// The tokenizer of a model directory or GGUF file; null if it has none. `explicit_file`, if not
/// empty, is read instead: a tokenizer's file, a GGUF file, or another model's directory.
Result<std::unique_ptr<Tokenizer>> open_tokenizer(const std::filesystem::path& model,
                                                  const std::filesystem::path& explicit_file = {});

/// That a bundle's two models take the same tokens: they have equal tokenizers or, where one has
/// none, vocabularies of one size. One tokenizer may be padded to two sizes. `where` names the
/// auxiliary in errors.
struct ModelVocabulary {
  const std::filesystem::path& model;
  int64_t size;
};
Status check_same_tokens(const ModelVocabulary& base, const ModelVocabulary& auxiliary,
                         const std::string& where);

/// The chat template that a GGUF file, or a directory converted from one, carries; else empty.
Result<std::string> gguf_chat_template(const std::filesystem::path& model);

}  // namespace kvcast

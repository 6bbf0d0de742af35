#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "kvcast/model.h"
#include "prefill/sequence.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// What a loaded Model owns.
struct Model::Impl {
  /// As Model::load, but for std::bad_alloc.
  static Result<std::shared_ptr<const Model>> load(const std::filesystem::path& directory,
                                                   const LoadOptions& options);

  std::filesystem::path path;  // as it was asked for
  Models models;
  std::unique_ptr<Tokenizer> tokenizer;  // null: only token ids in and out
  std::string tokenizer_hint;            // what to tell somebody who needs one
  std::string default_prefill;
  Dtype dtype = Dtype::kF32;
};

/// What weights are held as; nullopt for Dtype::kAuto.
std::optional<WeightType> weight_type(Dtype dtype);
Dtype dtype_of(WeightType type);
Dtype dtype_of(KvType type);
/// What keys and values are cached as beside `weights`, if `asked` (of parse_kv_dtype) is asked
/// for.
KvType kv_type_of(Dtype asked, Dtype weights);

/// That every token of the tokenizer, read from `file`, has an embedding in the model.
Status check_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& file,
                       const ModelConfig& model);

}  // namespace kvcast

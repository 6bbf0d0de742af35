#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"

namespace kvcast {

/// How weights are held and multiplied. Activations and sums are f32 throughout.
enum class Dtype {
  kAuto,  ///< as stored: f32 stays f32, bf16 and f16 become bf16
  kF32,
  kBf16,
  kInt8,        ///< quantised at load, a scale per output channel; activations per row on the fly
  kInt4,        ///< 4 bits in blocks of 32 with scale and minimum; activations in 8 bits
  kInt8Blocks,  ///< 8 bits in blocks of 32 with a scale; activations in 8 bits
};

/// "auto", "f32", "bf16", "int8", "int4", "int8-blocks".
Result<Dtype> parse_dtype(std::string_view name);
/// "auto", "f32", "bf16", "int8": what keys and values can be cached as.
Result<Dtype> parse_kv_dtype(std::string_view name);
std::string_view dtype_text(Dtype dtype);

struct LoadOptions {
  Dtype dtype = Dtype::kAuto;
  /// How keys and values are cached: kF32, kBf16 (half the memory, and attention's products in bf16
  /// where the processor has them), kInt8 (half of that and 4 bytes a row of a head: codes with a
  /// step for each row of each head), or kAuto: f32 beside f32 weights, else bf16.
  Dtype kv_dtype = Dtype::kAuto;
  /// Threads per forward pass at most (decoding takes as many as are fastest); 0: one for each
  /// processor that this process may run on, of a hybrid processor for each performance core, but
  /// no more than a control group's quota pays for.
  int threads = 0;
  /// A SentencePiece model file, for directories that carry none (published OpenELM checkpoints).
  std::filesystem::path tokenizer = {};
};

/// A model directory (Hugging Face OpenELM form) or a KV-prediction bundle (docs/FORMAT.md),
/// loaded. Immutable: share it between threads and sessions.
class Model {
 public:
  /// Errors name the file, the tensor or key, and what was expected.
  static Result<std::shared_ptr<const Model>> load(const std::filesystem::path& directory,
                                                   const LoadOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  /// True if KV prediction is possible: base, auxiliary and predictor are there.
  [[nodiscard]] bool is_bundle() const;
  [[nodiscard]] bool has_tokenizer() const;
  [[nodiscard]] int64_t vocab_size() const;
  /// Longest prompt plus answer, in tokens.
  [[nodiscard]] int64_t context_tokens() const;
  [[nodiscard]] int threads() const;
  /// Resolved: never kAuto.
  [[nodiscard]] Dtype dtype() const;
  [[nodiscard]] Dtype kv_dtype() const;
  /// Bytes of weights held in memory.
  [[nodiscard]] int64_t weight_bytes() const;
  /// The prefill strategy used when none is asked for: the bundle's own choice, else
  /// `kv-prediction` for bundles and `exact` for plain models.
  [[nodiscard]] const std::string& default_prefill() const;

  /// Text to token ids as Llama's tokenizer does; BOS first if asked for.
  Result<std::vector<int32_t>> tokenize(std::string_view text, bool add_bos = true) const;
  Result<std::string> detokenize(std::span<const int32_t> tokens) const;

  struct Impl;
  /// For the library's own parts.
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvcast

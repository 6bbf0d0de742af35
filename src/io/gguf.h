// GGUF: typed metadata, then tensors' names, shapes, types and offsets, then their bytes.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <filesystem>
#include <memory>

#include "io/gguf_metadata.h"
#include "io/tensor_source.h"
#include "kvcast/result.h"

namespace kvcast {

/// Whether the file begins as a GGUF file does; false too if it cannot be read.
bool is_gguf_file(const std::filesystem::path& file);

/// One GGUF file of version 2 or 3, or all parts of a split one, mapped. Shapes are row-major, the
/// reverse of the order in the file. Everything is checked on open: counts and sizes against the
/// file, products of dimensions against overflow, alignment, overlaps, names that appear twice.
/// Tensors of types that kvcast cannot read are errors.
class Gguf final : public TensorSource {
 public:
  /// `file` may be the first of several parts, NAME-00001-of-00003.gguf; the others lie beside it.
  static Result<std::unique_ptr<Gguf>> open(const std::filesystem::path& file);

  /// The file's key-value pairs; of a split file the first part's.
  [[nodiscard]] const GgufMetadata& values() const { return values_; }

 private:
  friend class GgufParser;
  Gguf() = default;
  Status add_parts(int64_t parts);

  GgufMetadata values_;
};

}  // namespace kvcast

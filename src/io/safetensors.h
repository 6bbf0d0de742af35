// Safetensors: an 8-byte little-endian header length, a JSON header, then the tensors' bytes.
// Format: https://huggingface.co/docs/safetensors
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "kvcast/result.h"

namespace kvcast {

enum class DType { kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kF64, kBool };

/// "F32", "BF16", ... as the format spells it.
std::string_view dtype_name(DType dtype);
/// Bytes per element.
size_t dtype_size(DType dtype);

/// A tensor inside a mapped file. Does not own `bytes`; row-major; `bytes` has exactly
/// product(shape) * dtype_size(dtype) bytes, but no particular alignment.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  [[nodiscard]] int64_t element_count() const;
};

/// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

/// One or several mapped safetensors files seen as one set of named tensors. Everything (header
/// length, offsets, overlaps, shapes against byte counts, duplicate names) is validated on open.
/// Immutable afterwards and safe to share between threads. Views live as long as this object.
class Safetensors {
 public:
  /// One file.
  static Result<std::unique_ptr<Safetensors>> open(const std::filesystem::path& file);

  /// A checkpoint directory: model.safetensors, or the shards that model.safetensors.index.json
  /// lists. Shard names must stay inside the directory.
  static Result<std::unique_ptr<Safetensors>> open_checkpoint(
      const std::filesystem::path& directory);

  [[nodiscard]] const std::map<std::string, TensorView, std::less<>>& tensors() const {
    return tensors_;
  }
  [[nodiscard]] bool contains(std::string_view name) const { return tensors_.contains(name); }

  /// The tensor, or an error that names the file and the tensor.
  Result<TensorView> find(std::string_view name) const;

  /// The tensor if it has exactly this shape and a floating type (F32, F16, BF16); otherwise an
  /// error that names file, tensor, expectation and what was found.
  Result<TensorView> find_float(std::string_view name, std::span<const int64_t> shape) const;

  /// The file that errors about this set of tensors should name.
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Free-form string pairs from the header's __metadata__.
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  friend class SafetensorsParser;
  std::filesystem::path path_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Element-wise conversion of F32, F16 or BF16 to f32. `out.size()` must equal element_count().
void to_float(const TensorView& tensor, std::span<float> out);

/// A tensor to be written; does not own `bytes` (row-major, product(shape) * dtype_size bytes).
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes one safetensors file atomically (temporary file, fsync, rename), streaming the tensors'
/// bytes. The data section starts 64-byte aligned; tensors follow each other without gaps.
Status write_safetensors(const std::filesystem::path& file, std::span<const TensorToWrite> tensors,
                         const std::map<std::string, std::string>& metadata = {});

/// Writes a checkpoint into an existing directory: model.safetensors or, if that would be larger
/// than `shard_bytes` (0: no limit), shards of at most that size in the order of `tensors` and
/// their model.safetensors.index.json. A tensor that is larger alone is an error.
Status write_checkpoint(const std::filesystem::path& directory,
                        std::span<const TensorToWrite> tensors,
                        const std::map<std::string, std::string>& metadata, int64_t shard_bytes);

}  // namespace kvcast

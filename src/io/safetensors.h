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
#include <vector>

#include "io/tensor_source.h"
#include "kvcast/result.h"

namespace kvcast {

class Safetensors : public TensorSource {
 public:
  /// One file.
  static Result<std::unique_ptr<Safetensors>> open(const std::filesystem::path& file);

  /// A checkpoint directory: model.safetensors, or the shards that model.safetensors.index.json
  /// lists. Shard names must stay inside the directory.
  static Result<std::unique_ptr<Safetensors>> open_checkpoint(
      const std::filesystem::path& directory);

 private:
  friend class SafetensorsParser;
  Safetensors() = default;
};

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

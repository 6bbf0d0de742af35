#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kvcast/result.h"

namespace kvcast {

/// How weights are held in memory.
enum class WeightType { kF32, kBf16, kInt8 };

/// Elements of a weight matrix before packing: row-major [n, k], F32, F16 or BF16 as in the file.
enum class SourceType { kF32, kF16, kBf16 };

/// One packed copy of a weight matrix W [n, k] (n output features, k inputs), used for every number
/// of rows from 1 to thousands and by every instruction set.
///
/// Layout: panels of kPanelColumns output features; inside a panel K-major, with 4-byte groups
/// along k (1 f32, 2 bf16 or 4 int8) kept together, so one group-row of a panel is 64 x 4 bytes:
///   panel p, group g, column c, element e  ->  W[p * 64 + c, g * group + e]
/// n is padded to whole panels and k to whole groups (int8: see packed_matrix.cpp) with zeros.
/// Memory is aligned to 64 bytes and on huge pages where the system allows it (madvise).
class PackedMatrix {
 public:
  static constexpr int64_t kPanelColumns = 64;

  PackedMatrix() = default;

  /// Converts and packs with `threads` threads. `source` holds n * k elements, any alignment.
  static PackedMatrix pack(const std::byte* source, SourceType source_type, int64_t n, int64_t k,
                           WeightType type, int threads);

  [[nodiscard]] int64_t n() const { return n_; }
  [[nodiscard]] int64_t k() const { return k_; }
  /// k rounded up to whole groups.
  [[nodiscard]] int64_t padded_k() const { return padded_k_; }
  [[nodiscard]] int64_t panels() const { return (n_ + kPanelColumns - 1) / kPanelColumns; }
  [[nodiscard]] WeightType type() const { return type_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  /// First byte of panel p.
  [[nodiscard]] const std::byte* panel(int64_t p) const { return data_.get() + p * panel_bytes_; }

  /// Row `index` of W converted back to f32, `out` has k elements: the embedding look-up of a model
  /// whose LM head is tied to its embeddings, so the matrix is held once.
  void unpack_row(int64_t index, std::span<float> out) const;

 private:
  int64_t n_ = 0, k_ = 0, padded_k_ = 0;
  WeightType type_ = WeightType::kF32;
  size_t bytes_ = 0, panel_bytes_ = 0;
  std::shared_ptr<const std::byte> data_;
};

}  // namespace kvcast

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "base/code_block.h"
#include "kvcast/result.h"

namespace kvcast {

/// How weights are held in memory.
enum class WeightType {
  kF32,
  kBf16,
  kInt8,        ///< one scale for each output feature
  kInt4Blocks,  ///< 4 bits, a scale and a minimum for every 32 weights along k: 5 bits a weight
  kInt8Blocks,  ///< 8 bits, a scale for every 32 weights along k: 8.5 bits a weight
};
inline constexpr WeightType kWeightTypes[] = {WeightType::kF32, WeightType::kBf16,
                                              WeightType::kInt8, WeightType::kInt4Blocks,
                                              WeightType::kInt8Blocks};
constexpr bool is_blocks(WeightType type) { return type >= WeightType::kInt4Blocks; }
/// Products are summed in integers.
constexpr bool is_integer(WeightType type) { return type >= WeightType::kInt8; }

/// Whether products of both may share their input (matmul_shared_input).
constexpr bool read_same_activations(WeightType a, WeightType b) {
  return a == b || (is_blocks(a) && is_blocks(b));
}

/// Elements of a weight matrix before packing: row-major [n, k], F32, F16 or BF16 as in the file.
enum class SourceType { kF32, kF16, kBf16 };

/// A row whose largest element is smaller is all zeros in int8: its inverse scale would overflow.
inline constexpr float kSmallestLargest = 1e-30F;

/// Elements along k that share a scale in kInt4Blocks and kInt8Blocks.
inline constexpr int64_t kWeightBlock = CodeBlock::kElements;

/// Where the rows of a matrix come from, if not from an array. Both are called for a piece of a row
/// at a time, which begins at a multiple of 1,024 elements and ends there or with the row.
struct WeightRows {
  /// Writes elements of row `row` from `begin` on. Never null.
  std::function<void(int64_t row, int64_t begin, std::span<float> out)> floats;
  /// Writes blocks of row `row` from block `begin` on, or null. kInt4Blocks takes their codes,
  /// which must be below 16, as they are, and kInt8Blocks does where a block's minimum is a whole
  /// number of times its scale; what does not fit is quantised anew. Other types ask for floats.
  std::function<void(int64_t row, int64_t begin, std::span<CodeBlock> out)> blocks = nullptr;
};

/// One packed copy of a weight matrix W [n, k] (n output features, k inputs), used for every number
/// of rows from 1 to thousands and by every instruction set.
///
/// Layout: panels of kPanelColumns output features; inside a panel K-major, with 4-byte groups
/// along k (1 f32, 2 bf16 or 4 int8) kept together, so one group-row of a panel is 64 x 4 bytes:
///   panel p, group g, column c, element e  ->  W[p * 64 + c, g * group + e]
/// n is padded to whole panels with zeros, k to whole multiples of 64 bytes per column (16 groups:
/// 16 f32, 32 bf16 or 64 int8, the depth of one AMX tile), so that no kernel has a remainder along
/// k.
///
/// An int8 panel ends with 64 f32 scales and 64 int32 column sums:
///   W[c, i] ~ scale[c] * q[c, i], q in [-127, 127], scale[c] = max|W[c, :]| / 127
///   column_sum[c] = sum over i of q[c, i]
/// The sums undo the offset of 128 that unsigned activations carry (vpdpbusd is u8 x s8).
///
/// Panels of the two kinds of blocks are blocks of 32 elements along k, one after the other (see
/// weight_blocks.h for their bytes).
///
/// Memory is aligned to 64 bytes and on huge pages where the system allows it (madvise).
/// Immutable after packing; copies share the bytes; safe to read from any number of threads.
class PackedMatrix {
 public:
  static constexpr int64_t kPanelColumns = 64;
  /// Bytes of one group-row of a panel.
  static constexpr int64_t kGroupRowBytes = kPanelColumns * 4;
  /// k is padded to whole multiples of this many groups.
  static constexpr int64_t kGroupMultiple = 16;

  PackedMatrix() = default;

  /// Converts and packs with `threads` threads. `source` holds n * k elements, any alignment.
  /// If memory runs out the result is empty().
  static PackedMatrix pack(const std::byte* source, SourceType source_type, int64_t n, int64_t k,
                           WeightType type, int threads);

  /// Packs rows that `rows` gives one by one, from several threads at once; what it gives of a
  /// row need not stay. Otherwise as above.
  static PackedMatrix pack_rows(const WeightRows& rows, int64_t n, int64_t k, WeightType type,
                                int threads);

  /// Takes bytes that were packed before (a converted model directory, mapped). `data` must hold
  /// packed_bytes(n, k, type) bytes, be aligned to 64 and keep its mapping alive by its deleter.
  static PackedMatrix adopt(std::shared_ptr<const std::byte> data, int64_t n, int64_t k,
                            WeightType type);

  /// Size of the packed form; nullopt if n or k is not positive or the size overflows.
  static std::optional<size_t> packed_bytes(int64_t n, int64_t k, WeightType type);

  /// Elements along k in one group (4 bytes of f32, bf16 and int8): 1, 2 or 4.
  static constexpr int64_t group_size(WeightType type) {
    return type == WeightType::kF32 ? 1 : type == WeightType::kBf16 ? 2 : 4;
  }
  /// Panels are cut along k in units of so many groups: a block of weights in blocks.
  static constexpr int64_t kUnitGroups = 8;
  static constexpr int64_t unit_bytes(WeightType type) {
    return type == WeightType::kInt4Blocks   ? kPanelColumns * (16 + 2 + 2)
           : type == WeightType::kInt8Blocks ? kPanelColumns * (32 + 2)
                                             : kUnitGroups * kGroupRowBytes;
  }

  [[nodiscard]] bool empty() const { return data_ == nullptr; }
  [[nodiscard]] int64_t n() const { return n_; }
  [[nodiscard]] int64_t k() const { return k_; }
  /// k rounded up to whole multiples of 16 groups.
  [[nodiscard]] int64_t padded_k() const { return padded_k_; }
  /// Groups along k, padding included; a multiple of kGroupMultiple.
  [[nodiscard]] int64_t groups() const { return padded_k_ / group_size(type_); }
  [[nodiscard]] int64_t panels() const { return (n_ + kPanelColumns - 1) / kPanelColumns; }
  [[nodiscard]] WeightType type() const { return type_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] size_t panel_bytes() const { return panel_bytes_; }
  /// First byte of panel p.
  [[nodiscard]] const std::byte* panel(int64_t p) const {
    return data_.get() + static_cast<size_t>(p) * panel_bytes_;
  }
  /// All packed bytes, for writing them to a file and adopting them later.
  [[nodiscard]] std::span<const std::byte> data() const { return {data_.get(), bytes_}; }
  /// int8 only: [64] scales and column sums of panel p; zero in padded columns.
  [[nodiscard]] const float* scales(int64_t p) const {
    return reinterpret_cast<const float*>(panel(p) + groups() * kGroupRowBytes);
  }
  [[nodiscard]] const int32_t* column_sums(int64_t p) const {
    return reinterpret_cast<const int32_t*>(panel(p) + (groups() + 1) * kGroupRowBytes);
  }

  /// Row `index` of W converted back to f32, `out` has k elements: the embedding look-up of a model
  /// whose LM head is tied to its embeddings, so the matrix is held once.
  void unpack_row(int64_t index, std::span<float> out) const;
  /// Several of them, out [indices.size(), k].
  void unpack_rows(std::span<const int32_t> indices, float* out, int threads) const;

 private:
  PackedMatrix(int64_t n, int64_t k, WeightType type);
  template <typename PackPanel>
  static PackedMatrix pack_panels(int64_t n, int64_t k, WeightType type, int threads,
                                  const PackPanel& pack_one);

  int64_t n_ = 0, k_ = 0, padded_k_ = 0;
  WeightType type_ = WeightType::kF32;
  size_t bytes_ = 0, panel_bytes_ = 0;
  std::shared_ptr<const std::byte> data_;
};

}  // namespace kvcast

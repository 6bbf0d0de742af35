// A named piece of a mapped file: what readers of weight files hand out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvcast {

enum class DType {
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kF64,
  kBool,
  // GGUF's block types (io/code_blocks.h).
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4K,
  kQ5K,
  kQ6K,
  kIq4Nl
};

/// How a type is stored: `elements` of it, neighbours in a row, take `bytes`. One element for all
/// but block types, where a row is a whole number of blocks.
struct DTypeLayout {
  DType dtype;
  std::string_view name;  ///< "F32", "BF16", ... as files and errors spell it
  int64_t elements;
  int64_t bytes;
};
const DTypeLayout& dtype_layout(DType dtype);

std::string_view dtype_name(DType dtype);
/// Bytes per element; not for block types.
size_t dtype_size(DType dtype);

/// A tensor inside a mapped file. Does not own `bytes`; row-major, the last dimension is the one
/// whose elements are neighbours; `bytes` has exactly what `shape` takes, but no particular
/// alignment.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  [[nodiscard]] int64_t element_count() const;
};

/// Whether to_float converts it.
bool is_float(DType dtype);

/// "[2, 3]"
std::string shape_text(std::span<const int64_t> shape);

/// F32, F16, BF16 or a block type to f32. `out.size()` must equal element_count().
void to_float(const TensorView& tensor, std::span<float> out);
/// The same of neighbours: `bytes` are those of out.size() elements.
void to_float(DType dtype, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace kvcast

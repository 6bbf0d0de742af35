#include "io/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "base/half.h"
#include "io/code_blocks.h"

namespace kvcast {
namespace {

constexpr std::array kLayouts = {
    DTypeLayout{DType::kF32, "F32", 1, 4},       DTypeLayout{DType::kF16, "F16", 1, 2},
    DTypeLayout{DType::kBF16, "BF16", 1, 2},     DTypeLayout{DType::kI64, "I64", 1, 8},
    DTypeLayout{DType::kI32, "I32", 1, 4},       DTypeLayout{DType::kI16, "I16", 1, 2},
    DTypeLayout{DType::kI8, "I8", 1, 1},         DTypeLayout{DType::kU8, "U8", 1, 1},
    DTypeLayout{DType::kF64, "F64", 1, 8},       DTypeLayout{DType::kBool, "BOOL", 1, 1},
    DTypeLayout{DType::kQ8_0, "Q8_0", 32, 34},   DTypeLayout{DType::kQ4_0, "Q4_0", 32, 18},
    DTypeLayout{DType::kQ4_1, "Q4_1", 32, 20},   DTypeLayout{DType::kQ5_0, "Q5_0", 32, 22},
    DTypeLayout{DType::kQ5_1, "Q5_1", 32, 24},   DTypeLayout{DType::kQ4K, "Q4_K", 256, 144},
    DTypeLayout{DType::kQ5K, "Q5_K", 256, 176},  DTypeLayout{DType::kQ6K, "Q6_K", 256, 210},
    DTypeLayout{DType::kIq4Nl, "IQ4_NL", 32, 18}};

}  // namespace

const DTypeLayout& dtype_layout(DType dtype) {
  return *std::ranges::find(kLayouts, dtype, &DTypeLayout::dtype);
}

std::string_view dtype_name(DType dtype) { return dtype_layout(dtype).name; }

size_t dtype_size(DType dtype) {
  assert(dtype_layout(dtype).elements == 1);
  return static_cast<size_t>(dtype_layout(dtype).bytes);
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         dtype_layout(dtype).elements > 1;
}

int64_t TensorView::element_count() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;  // checked when the file was opened
  return count;
}

std::string shape_text(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void to_float(const TensorView& tensor, std::span<float> out) {
  assert(static_cast<int64_t>(out.size()) == tensor.element_count());
  to_float(tensor.dtype, tensor.bytes, out);
}

void to_float(DType dtype, std::span<const std::byte> bytes, std::span<float> out) {
  if (dtype == DType::kF32) {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return;
  }
  if (dtype_layout(dtype).elements > 1) return dequantize(dtype, bytes, out);
  assert(dtype == DType::kF16 || dtype == DType::kBF16);
  const bool is_f16 = dtype == DType::kF16;
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
    out[i] = is_f16 ? f16_to_float(bits) : bf16_to_float(bits);
  }
}

}  // namespace kvcast

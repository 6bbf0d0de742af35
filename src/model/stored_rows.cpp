#include "model/stored_rows.h"

#include <algorithm>
#include <cassert>

#include "io/code_blocks.h"

namespace kvcast {
namespace {

WeightType type_of(DType dtype) {
  if (dtype == DType::kF32) return WeightType::kF32;
  if (dtype_layout(dtype).elements == 1) return WeightType::kBf16;
  const bool is_small = has_code_blocks(dtype) && code_bits(dtype) == 4;
  return is_small ? WeightType::kInt4Blocks : WeightType::kInt8Blocks;
}

SourceType source_type(DType dtype) {
  if (dtype == DType::kF32) return SourceType::kF32;
  return dtype == DType::kF16 ? SourceType::kF16 : SourceType::kBf16;
}

}  // namespace

WeightType finer(WeightType a, WeightType b) {
  return is_blocks(a) && is_blocks(b) ? std::max(a, b) : std::min(a, b);
}

StoredRows::Piece StoredRows::piece(int64_t row, int64_t begin, int64_t count) const {
  size_t i = 0;
  while (row >= entry_.parts[i].rows) row -= entry_.parts[i++].rows;
  const TensorPart& part = entry_.parts[i];
  const size_t row_bytes = tensors_[i].bytes.size() / static_cast<size_t>(part.stored_rows);
  const DTypeLayout& stored = dtype_layout(tensors_[i].dtype);
  assert(begin % stored.elements == 0 && count % stored.elements == 0);
  const int64_t offset = begin / stored.elements * stored.bytes;
  const auto bytes = static_cast<size_t>(count / stored.elements * stored.bytes);
  return {stored.dtype,
          tensors_[i].bytes.subspan(
              static_cast<size_t>(part.stored_row(row)) * row_bytes + static_cast<size_t>(offset),
              bytes)};
}

void StoredRows::floats(int64_t row, int64_t begin, std::span<float> out) const {
  const Piece stored = piece(row, begin, static_cast<int64_t>(out.size()));
  to_float(stored.dtype, stored.bytes, out);
}

WeightType StoredRows::type() const {
  WeightType type = type_of(tensors_.front().dtype);
  for (const TensorView& tensor : tensors_) type = finer(type, type_of(tensor.dtype));
  return type;
}

bool StoredRows::is_plain() const {
  return tensors_.size() == 1 && entry_.parts.front().interleaved == 0 &&
         dtype_layout(tensors_.front().dtype).elements == 1;
}

bool StoredRows::has_blocks() const {
  return std::ranges::all_of(
      tensors_, [](const TensorView& tensor) { return has_code_blocks(tensor.dtype); });
}

PackedMatrix StoredRows::pack(WeightType type, int threads) const {
  if (is_plain()) {
    return PackedMatrix::pack(piece(0, 0, entry_.columns).bytes.data(),
                              source_type(tensors_.front().dtype), entry_.rows, entry_.columns,
                              type, threads);
  }
  WeightRows rows{.floats = [this](int64_t row, int64_t begin, std::span<float> out) {
    floats(row, begin, out);
  }};
  if (has_blocks()) {
    rows.blocks = [this](int64_t row, int64_t begin, std::span<CodeBlock> out) {
      constexpr int64_t kElements = CodeBlock::kElements;
      const Piece stored =
          piece(row, begin * kElements, static_cast<int64_t>(out.size()) * kElements);
      decode_blocks(stored.dtype, stored.bytes, out);
    };
  }
  return PackedMatrix::pack_rows(rows, entry_.rows, entry_.columns, type, threads);
}

}  // namespace kvcast

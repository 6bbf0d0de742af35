#include "model/stored_rows.h"

#include <algorithm>
#include <array>

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

/// A stored row as blocks, decoded some at a time.
void write_blocks(const TensorView& row, WeightBlock* out) {
  constexpr int64_t kStoredAtATime = 8;
  std::array<CodeBlock, kStoredAtATime * 256 / CodeBlock::kElements> decoded;
  const DTypeLayout& stored = dtype_layout(row.dtype);
  const int64_t blocks_each = stored.elements / CodeBlock::kElements;
  const int64_t count = row.shape.front() / stored.elements;
  for (int64_t first = 0; first < count; first += kStoredAtATime) {
    const int64_t some = std::min(kStoredAtATime, count - first);
    const std::span into(decoded.data(), static_cast<size_t>(some * blocks_each));
    decode_blocks(row.dtype,
                  row.bytes.subspan(static_cast<size_t>(first * stored.bytes),
                                    static_cast<size_t>(some * stored.bytes)),
                  into);
    for (const CodeBlock& block : into) {
      out->scale = block.scale;
      out->minimum = block.minimum;
      std::ranges::copy(block.codes, out->codes);
      ++out;
    }
  }
}

}  // namespace

WeightType finer(WeightType a, WeightType b) {
  return is_blocks(a) && is_blocks(b) ? std::max(a, b) : std::min(a, b);
}

TensorView StoredRows::row(int64_t index) const {
  size_t i = 0;
  while (index >= entry_.parts[i].rows) index -= entry_.parts[i++].rows;
  const TensorPart& part = entry_.parts[i];
  const size_t bytes = tensors_[i].bytes.size() / static_cast<size_t>(part.stored_rows);
  const auto offset = static_cast<size_t>(part.stored_row(index)) * bytes;
  return {tensors_[i].dtype,
          {entry_.is_matrix() ? entry_.columns : 1},
          tensors_[i].bytes.subspan(offset, bytes)};
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
    return PackedMatrix::pack(row(0).bytes.data(), source_type(tensors_.front().dtype), entry_.rows,
                              entry_.columns, type, threads);
  }
  WeightRows rows{.floats = [this](int64_t index, float* out) {
    to_float(row(index), {out, static_cast<size_t>(entry_.columns)});
  }};
  if (has_blocks()) {
    rows.blocks = [this](int64_t index, WeightBlock* out) { write_blocks(row(index), out); };
  }
  return PackedMatrix::pack_rows(rows, entry_.rows, entry_.columns, type, threads);
}

}  // namespace kvcast

#include "model/weight_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <new>

#include "base/macros.h"
#include "base/team.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

SourceType source_type(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return SourceType::kBf16;
    case DType::kF16:
      return SourceType::kF16;
    default:
      return SourceType::kF32;
  }
}

DType packed_dtype(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return DType::kF32;
    case WeightType::kBf16:
      return DType::kBF16;
    case WeightType::kInt8:
      return DType::kI8;
    case WeightType::kInt4Blocks:
    case WeightType::kInt8Blocks:
      break;
  }
  return DType::kU8;
}

/// Blocks are told apart by how many bytes they have.
Result<WeightType> packed_type(const TensorSource& file, std::string_view name,
                               const TensorView& tensor) {
  for (const WeightType type : kWeightTypes) {
    if (packed_dtype(type) != tensor.dtype) continue;
    if (is_blocks(type) &&
        (tensor.shape.empty() || tensor.shape.back() != PackedMatrix::unit_bytes(type))) {
      continue;
    }
    return type;
  }
  return fail(
      fmt::format("{}: tensor {}: dtype {}, shape {}, expected F32, BF16, I8, or U8 in "
                  "blocks of {} or {} bytes",
                  file.path().string(), name, dtype_name(tensor.dtype), shape_text(tensor.shape),
                  PackedMatrix::unit_bytes(WeightType::kInt4Blocks),
                  PackedMatrix::unit_bytes(WeightType::kInt8Blocks)));
}

/// [panels, rows of 4-byte groups in a panel, columns of a panel, elements of a group]; an int8
/// panel's scales and sums count as two rows. [panels, blocks, bytes of a block] of weights in
/// blocks. Empty if there is no such matrix.
std::vector<int64_t> packed_shape(int64_t n, int64_t k, WeightType type) {
  const auto bytes = PackedMatrix::packed_bytes(n, k, type);
  if (!bytes) return {};
  const int64_t panels = (n + PackedMatrix::kPanelColumns - 1) / PackedMatrix::kPanelColumns;
  const int64_t panel_bytes = static_cast<int64_t>(*bytes) / panels;
  const int64_t block_bytes = PackedMatrix::unit_bytes(type);
  if (is_blocks(type)) return {panels, panel_bytes / block_bytes, block_bytes};
  const int64_t rows = panel_bytes / PackedMatrix::kGroupRowBytes;
  return {panels, rows, PackedMatrix::kPanelColumns, PackedMatrix::group_size(type)};
}

std::shared_ptr<const std::byte> copy(std::span<const std::byte> bytes) {
  const std::shared_ptr<std::byte> memory = allocate_weights(bytes.size());
  if (memory == nullptr) throw std::bad_alloc();
  std::memcpy(memory.get(), bytes.data(), bytes.size());
  return memory;
}

/// What holds a stored type as it is.
WeightType stored_type(DType dtype) {
  return dtype == DType::kF32 ? WeightType::kF32 : WeightType::kBf16;
}

/// Calls `take` with each row of the entry and its index, several threads at once.
template <typename Take>
void for_each_row(const LayoutEntry& entry, const std::vector<TensorView>& tensors, int threads,
                  const Take& take) {
  int64_t first = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorPart& part = entry.parts[i];
    const size_t row_bytes = tensors[i].bytes.size() / static_cast<size_t>(part.stored_rows);
    const int64_t width = entry.is_matrix() ? entry.columns : 1;
    parallel_for(part.rows, threads, [&](int64_t row, int) {
      const auto offset = static_cast<size_t>(part.stored_row(row)) * row_bytes;
      take(TensorView{tensors[i].dtype, {width}, tensors[i].bytes.subspan(offset, row_bytes)},
           first + row);
    });
    first += part.rows;
  }
}

/// The rows of a matrix, one after the other: where they lie, if they do, else a copy.
class GatheredRows {
 public:
  GatheredRows(const LayoutEntry& entry, const std::vector<TensorView>& tensors, int threads) {
    const TensorPart& part = entry.parts.front();
    const DType dtype = tensors.front().dtype;
    type_ = source_type(dtype);
    if (entry.parts.size() == 1 && part.interleaved == 0) {
      const size_t row_bytes = dtype_size(dtype) * static_cast<size_t>(entry.columns);
      bytes_ = tensors.front().bytes.subspan(static_cast<size_t>(part.first_row) * row_bytes,
                                             static_cast<size_t>(part.rows) * row_bytes);
      return;
    }
    const bool one_type = std::ranges::all_of(
        tensors, [&](const TensorView& tensor) { return tensor.dtype == dtype; });
    if (!one_type) type_ = SourceType::kF32;
    const size_t element = one_type ? dtype_size(dtype) : sizeof(float);
    const size_t row_bytes = element * static_cast<size_t>(entry.columns);
    const size_t bytes = row_bytes * static_cast<size_t>(entry.rows);
    copy_ = allocate_pages(bytes);  // not from the heap, which would keep it
    if (copy_ == nullptr) throw std::bad_alloc();
    bytes_ = {copy_.get(), bytes};
    for_each_row(entry, tensors, threads, [&](const TensorView& row, int64_t index) {
      std::byte* const out = copy_.get() + static_cast<size_t>(index) * row_bytes;
      if (one_type) {
        std::memcpy(out, row.bytes.data(), row_bytes);
      } else {
        to_float(row, {reinterpret_cast<float*>(out), static_cast<size_t>(entry.columns)});
      }
    });
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] SourceType type() const { return type_; }

 private:
  std::shared_ptr<std::byte> copy_;
  std::span<const std::byte> bytes_;
  SourceType type_;
};

}  // namespace

bool is_packed(const TensorSource& file) { return file.metadata().contains(kPackedKey); }

std::string packed_name(std::string_view name) {
  constexpr std::string_view kPlain = ".weight";
  assert(name.ends_with(kPlain));
  return std::string(name.substr(0, name.size() - kPlain.size())) + ".packed";
}

PackedMatrix pack_or_throw(const std::byte* rows, SourceType source, int64_t n, int64_t k,
                           WeightType type, int threads) {
  PackedMatrix packed = PackedMatrix::pack(rows, source, n, k, type, threads);
  if (packed.empty()) throw std::bad_alloc();
  return packed;
}

Result<WeightReader> WeightReader::open(std::shared_ptr<const TensorSource> file,
                                        std::optional<WeightType> type, int threads) {
  if (kvcast::is_packed(*file)) {
    const std::string& version = file->metadata().at(kPackedKey);
    if (version != kPackedVersion) {
      return fail(fmt::format("{}: __metadata__ {}: expected \"{}\", found \"{}\"",
                              file->path().string(), kPackedKey, kPackedVersion, version));
    }
  }
  return WeightReader(std::move(file), type, threads);
}

Result<std::vector<TensorView>> WeightReader::tensors_of(const LayoutEntry& entry) const {
  std::vector<TensorView> tensors;
  for (const TensorPart& part : entry.parts) {
    const std::array shape{part.stored_rows, entry.columns};
    KVCAST_TRY(TensorView tensor,
               file_->find_float(part.name, std::span(shape).first(entry.is_matrix() ? 2 : 1)));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

Result<PackedMatrix> WeightReader::matrix(const LayoutEntry& entry) const {
  const int64_t n = entry.rows, k = entry.columns;
  if (is_packed()) {
    KVCAST_TRY(PackedMatrix packed, read_packed(entry.parts.front().name, n, k));
    if (!type_ || packed.type() == *type_) return packed;
    const std::vector<float> rows = unpack(packed, threads_);
    return pack_or_throw(reinterpret_cast<const std::byte*>(rows.data()), SourceType::kF32, n, k,
                         *type_, threads_);
  }
  KVCAST_TRY(const auto tensors, tensors_of(entry));
  const WeightType type = type_.value_or(stored_type(tensors.front().dtype));
  const GatheredRows rows(entry, tensors, threads_);
  PackedMatrix packed = pack_or_throw(rows.bytes().data(), rows.type(), n, k, type, threads_);
  for (const TensorView& tensor : tensors) {
    MappedFile::release(tensor.bytes);  // so that the weights are not in memory twice
  }
  return packed;
}

Result<std::vector<float>> WeightReader::floats(const LayoutEntry& entry) const {
  std::vector<float> values;
  if (is_packed() && entry.is_matrix()) {
    for (const TensorPart& part : entry.parts) {
      KVCAST_TRY(const auto packed, read_packed(part.name, part.stored_rows, entry.columns));
      const std::vector<float> rows = unpack(packed, threads_);
      const auto* const first = rows.data() + part.first_row * entry.columns;
      values.insert(values.end(), first, first + part.rows * entry.columns);
    }
    return values;
  }
  KVCAST_TRY(const auto tensors, tensors_of(entry));
  const int64_t width = entry.is_matrix() ? entry.columns : 1;
  values.resize(static_cast<size_t>(entry.rows * width));
  for_each_row(entry, tensors, threads_, [&](const TensorView& row, int64_t index) {
    to_float(row, std::span(values).subspan(static_cast<size_t>(index * width),
                                            static_cast<size_t>(width)));
  });
  return values;
}

Result<PackedMatrix> WeightReader::read_packed(std::string_view plain_name, int64_t n,
                                               int64_t k) const {
  const std::string name = packed_name(plain_name);
  KVCAST_TRY(const TensorView tensor, file_->find(name));
  KVCAST_TRY(const WeightType type, packed_type(*file_, name, tensor));
  const auto expected = packed_shape(n, k, type);
  if (expected.empty() || tensor.shape != expected) {
    return fail(fmt::format("{}: tensor {}: shape {}, expected {} for a matrix of {} by {}",
                            file_->path().string(), name, shape_text(tensor.shape),
                            shape_text(expected), n, k));
  }
  std::shared_ptr<const std::byte> mapped(file_, tensor.bytes.data());
  const bool aligned = reinterpret_cast<uintptr_t>(mapped.get()) % 64 == 0;
  // Another writer's order of tensors may have put it anywhere.
  return PackedMatrix::adopt(aligned ? std::move(mapped) : copy(tensor.bytes), n, k, type);
}

TensorToWrite packed_tensor(std::string_view name, const PackedMatrix& matrix) {
  return {packed_name(name), packed_dtype(matrix.type()),
          packed_shape(matrix.n(), matrix.k(), matrix.type()), matrix.data()};
}

TensorToWrite float_tensor(std::string name, std::span<const float> values) {
  return {
      std::move(name), DType::kF32, {static_cast<int64_t>(values.size())}, std::as_bytes(values)};
}

std::vector<float> unpack(const PackedMatrix& matrix, int threads) {
  const auto k = static_cast<size_t>(matrix.k());
  std::vector<float> rows(static_cast<size_t>(matrix.n()) * k);
  parallel_for(matrix.n(), threads, [&](int64_t row, int) {
    matrix.unpack_row(row, std::span(rows).subspan(static_cast<size_t>(row) * k, k));
  });
  return rows;
}

}  // namespace kvcast

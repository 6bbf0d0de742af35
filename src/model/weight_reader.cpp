#include "model/weight_reader.h"

#include <fmt/format.h>

#include <array>
#include <cassert>
#include <cstring>
#include <new>

#include "base/macros.h"
#include "base/team.h"
#include "kernels/memory.h"
#include "model/stored_rows.h"

namespace kvcast {
namespace {

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

Status WeightReader::check(const LayoutEntry& entry) const {
  if (!is_packed() || !entry.is_matrix()) {
    KVCAST_CHECK(tensors_of(entry));
    return {};
  }
  for (const TensorPart& part : entry.parts) {
    KVCAST_CHECK(read_packed(part, entry.columns));
  }
  return {};
}

Result<WeightType> WeightReader::type_of(const LayoutEntry& entry) const {
  if (type_) return *type_;
  if (is_packed()) {
    const std::string name = packed_name(entry.parts.front().name);
    KVCAST_TRY(const TensorView tensor, file_->find(name));
    return packed_type(*file_, name, tensor);
  }
  KVCAST_TRY(auto tensors, tensors_of(entry));
  return StoredRows(entry, std::move(tensors)).type();
}

Result<PackedMatrix> WeightReader::matrix(const LayoutEntry& entry, WeightType type) const {
  const int64_t n = entry.rows, k = entry.columns;
  if (is_packed()) {
    KVCAST_TRY(PackedMatrix packed, read_packed(entry.parts.front(), k));
    if (packed.type() == type) return packed;
    const std::vector<float> rows = unpack(packed, threads_);
    return pack_or_throw(reinterpret_cast<const std::byte*>(rows.data()), SourceType::kF32, n, k,
                         type, threads_);
  }
  KVCAST_TRY(const auto tensors, tensors_of(entry));
  PackedMatrix packed = StoredRows(entry, tensors).pack(type, threads_);
  if (packed.empty()) throw std::bad_alloc();
  for (const TensorView& tensor : tensors) {
    MappedFile::release(tensor.bytes);  // so that the weights are not in memory twice
  }
  return packed;
}

Result<PackedMatrix> WeightReader::matrix(const LayoutEntry& entry) const {
  KVCAST_TRY(const WeightType type, type_of(entry));
  return matrix(entry, type);
}

Result<std::vector<float>> WeightReader::floats(const LayoutEntry& entry) const {
  std::vector<float> values;
  if (is_packed() && entry.is_matrix()) {
    for (const TensorPart& part : entry.parts) {
      KVCAST_TRY(const auto packed, read_packed(part, entry.columns));
      const std::vector<float> rows = unpack(packed, threads_);
      values.insert(values.end(), rows.begin(), rows.end());
    }
    return values;
  }
  KVCAST_TRY(auto tensors, tensors_of(entry));
  const StoredRows rows(entry, std::move(tensors));
  const int64_t width = entry.is_matrix() ? entry.columns : 1;
  values.resize(static_cast<size_t>(entry.rows * width));
  parallel_for(entry.rows, threads_, [&](int64_t row, int) {
    rows.floats(
        row, 0,
        std::span(values).subspan(static_cast<size_t>(row * width), static_cast<size_t>(width)));
  });
  return values;
}

Result<PackedMatrix> WeightReader::read_packed(const TensorPart& part, int64_t k) const {
  assert(part.first_row == 0);  // a packed file holds apart what is used apart
  const std::string name = packed_name(part.name);
  KVCAST_TRY(const TensorView tensor, file_->find(name));
  KVCAST_TRY(const WeightType type, packed_type(*file_, name, tensor));
  const auto expected = packed_shape(part.stored_rows, k, type);
  if (expected.empty() || tensor.shape != expected) {
    return fail(fmt::format("{}: tensor {}: shape {}, expected {} for a matrix of {} by {}",
                            file_->path().string(), name, shape_text(tensor.shape),
                            shape_text(expected), part.stored_rows, k));
  }
  std::shared_ptr<const std::byte> mapped(file_, tensor.bytes.data());
  const bool aligned = reinterpret_cast<uintptr_t>(mapped.get()) % 64 == 0;
  // Another writer's order of tensors may have put it anywhere.
  return PackedMatrix::adopt(aligned ? std::move(mapped) : copy(tensor.bytes), part.rows, k, type);
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

#include "model/weight_reader.h"

#include <fmt/format.h>

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
      break;
  }
  return DType::kI8;
}

Result<WeightType> packed_type(const Safetensors& file, std::string_view name, DType dtype) {
  for (const WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kInt8}) {
    if (packed_dtype(type) == dtype) return type;
  }
  return fail(fmt::format("{}: tensor {}: dtype {}, expected F32, BF16 or I8", file.path().string(),
                          name, dtype_name(dtype)));
}

/// [panels, rows of 4-byte groups in a panel, columns of a panel, elements of a group]; an int8
/// panel's scales and sums count as two rows. Empty if there is no such matrix.
std::vector<int64_t> packed_shape(int64_t n, int64_t k, WeightType type) {
  const auto bytes = PackedMatrix::packed_bytes(n, k, type);
  if (!bytes) return {};
  const int64_t panels = (n + PackedMatrix::kPanelColumns - 1) / PackedMatrix::kPanelColumns;
  const int64_t rows = static_cast<int64_t>(*bytes) / panels / PackedMatrix::kGroupRowBytes;
  return {panels, rows, PackedMatrix::kPanelColumns, PackedMatrix::group_size(type)};
}

std::shared_ptr<const std::byte> copy(std::span<const std::byte> bytes) {
  const std::shared_ptr<std::byte> memory = allocate_weights(bytes.size());
  if (memory == nullptr) throw std::bad_alloc();
  std::memcpy(memory.get(), bytes.data(), bytes.size());
  return memory;
}

}  // namespace

bool is_packed(const Safetensors& file) { return file.metadata().contains(kPackedKey); }

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

Result<WeightReader> WeightReader::open(std::shared_ptr<const Safetensors> file, WeightType type,
                                        int threads) {
  if (kvcast::is_packed(*file)) {
    const std::string& version = file->metadata().at(kPackedKey);
    if (version != kPackedVersion) {
      return fail(fmt::format("{}: __metadata__ {}: expected \"{}\", found \"{}\"",
                              file->path().string(), kPackedKey, kPackedVersion, version));
    }
  }
  return WeightReader(std::move(file), type, threads);
}

Result<PackedMatrix> WeightReader::matrix(const MatrixPart& part) const {
  if (is_packed()) {
    KVCAST_TRY(PackedMatrix packed, read_packed(part));
    if (packed.type() == type_) return packed;
    const std::vector<float> rows = unpack(packed, threads_);
    return pack_or_throw(reinterpret_cast<const std::byte*>(rows.data()), SourceType::kF32, part.n,
                         part.k, type_, threads_);
  }
  KVCAST_TRY(const auto tensor,
             file_->find_float(part.stored, std::array{part.stored_rows, part.k}));
  const size_t row_bytes = dtype_size(tensor.dtype) * static_cast<size_t>(part.k);
  const auto rows = tensor.bytes.subspan(static_cast<size_t>(part.first_row) * row_bytes,
                                         static_cast<size_t>(part.n) * row_bytes);
  PackedMatrix packed =
      pack_or_throw(rows.data(), source_type(tensor.dtype), part.n, part.k, type_, threads_);
  MappedFile::release(rows);  // so that the weights are not in memory twice
  return packed;
}

Result<PackedMatrix> WeightReader::read_packed(const MatrixPart& part) const {
  const std::string name = packed_name(part.name);
  KVCAST_TRY(const TensorView tensor, file_->find(name));
  KVCAST_TRY(const WeightType type, packed_type(*file_, name, tensor.dtype));
  const auto expected = packed_shape(part.n, part.k, type);
  if (expected.empty() || tensor.shape != expected) {
    return fail(fmt::format("{}: tensor {}: shape {}, expected {} for a matrix of {} by {}",
                            file_->path().string(), name, shape_text(tensor.shape),
                            shape_text(expected), part.n, part.k));
  }
  std::shared_ptr<const std::byte> mapped(file_, tensor.bytes.data());
  const bool aligned = reinterpret_cast<uintptr_t>(mapped.get()) % 64 == 0;
  // Another writer's order of tensors may have put it anywhere.
  return PackedMatrix::adopt(aligned ? std::move(mapped) : copy(tensor.bytes), part.n, part.k,
                             type);
}

Result<std::vector<float>> WeightReader::vector(std::string_view name, int64_t n) const {
  KVCAST_TRY(const auto tensor, file_->find_float(name, std::array{n}));
  std::vector<float> values(static_cast<size_t>(n));
  to_float(tensor, values);
  return values;
}

Result<WeightType> stored_weight_type(const Safetensors& file, std::string_view name) {
  if (is_packed(file)) {
    const std::string packed = packed_name(name);
    KVCAST_TRY(const auto tensor, file.find(packed));
    return packed_type(file, packed, tensor.dtype);
  }
  KVCAST_TRY(const auto tensor, file.find(name));
  return tensor.dtype == DType::kF32 ? WeightType::kF32 : WeightType::kBf16;
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

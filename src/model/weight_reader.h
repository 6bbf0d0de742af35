// Named tensors of safetensors files as weights: packed while they are read, or mapped as they are
// from files that hold them packed (docs/FORMAT.md, "Packed weights").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "kernels/packed_matrix.h"
#include "kvcast/result.h"

namespace kvcast {

/// Key of __metadata__ that says a file's matrices are packed; its value is the layout's version.
inline constexpr const char* kPackedKey = "kvcast_packed";
inline constexpr const char* kPackedVersion = "1";
bool is_packed(const Safetensors& file);
/// "x.packed" for "x.weight": what a packed file calls the matrix.
std::string packed_name(std::string_view name);

/// Part of a stored matrix: rows [first_row, first_row + n) of the tensor `stored` [stored_rows,
/// k]. A packed file holds each part apart, as packed_name(name).
struct MatrixPart {
  std::string name, stored;  // end in ".weight"
  int64_t stored_rows = 0, first_row = 0, n = 0, k = 0;

  /// A stored matrix that is used as it is.
  static MatrixPart whole(std::string name, int64_t n, int64_t k) {
    return {.name = name, .stored = name, .stored_rows = n, .first_row = 0, .n = n, .k = k};
  }
};

/// Reads from one checkpoint or predictor file, in whichever of the two forms it is.
class WeightReader {
 public:
  /// Fails if the file is packed in a layout that this version does not know. Matrices that are
  /// packed as `type` in the file stay there: they keep `file` open.
  static Result<WeightReader> open(std::shared_ptr<const Safetensors> file, WeightType type,
                                   int threads);

  /// Whether matrices are stored packed, so that matrix() finds whole parts under their own names.
  [[nodiscard]] bool is_packed() const { return kvcast::is_packed(*file_); }

  /// Errors name the file, the tensor and the shape expected. Throws std::bad_alloc where memory
  /// runs out.
  Result<PackedMatrix> matrix(const MatrixPart& part) const;
  Result<std::vector<float>> vector(std::string_view name, int64_t n) const;

 private:
  WeightReader(std::shared_ptr<const Safetensors> file, WeightType type, int threads)
      : file_(std::move(file)), type_(type), threads_(threads) {}
  Result<PackedMatrix> read_packed(const MatrixPart& part) const;

  std::shared_ptr<const Safetensors> file_;
  WeightType type_;
  int threads_;
};

/// The type that holds what is stored of the matrix `name`; F16 becomes bf16.
Result<WeightType> stored_weight_type(const Safetensors& file, std::string_view name);

/// A packed matrix as a tensor of a packed file. The bytes stay the matrix's.
TensorToWrite packed_tensor(std::string_view name, const PackedMatrix& matrix);
/// A norm or bias, F32 in every file.
TensorToWrite float_tensor(std::string name, std::span<const float> values);

/// Row-major [n, k] f32.
std::vector<float> unpack(const PackedMatrix& matrix, int threads);

/// PackedMatrix::pack, with memory running out as everywhere else: throws std::bad_alloc.
PackedMatrix pack_or_throw(const std::byte* rows, SourceType source, int64_t n, int64_t k,
                           WeightType type, int threads);

}  // namespace kvcast

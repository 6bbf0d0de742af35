// Named tensors of files as weights: packed while they are read, or mapped as they are from files
// that hold them packed (docs/FORMAT.md, "Packed weights").
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "kernels/packed_matrix.h"
#include "kvcast/result.h"
#include "model/layout.h"

namespace kvcast {

/// Key of __metadata__ that says a file's matrices are packed; its value is the layout's version.
inline constexpr const char* kPackedKey = "kvcast_packed";
inline constexpr const char* kPackedVersion = "1";
bool is_packed(const TensorSource& file);
/// "x.packed" for "x.weight": what a packed file calls the matrix.
std::string packed_name(std::string_view name);

/// Reads from one checkpoint or predictor file, in whichever form it is.
class WeightReader {
 public:
  /// Fails if the file is packed in a layout that this version does not know. Matrices become
  /// `type`; null: what holds them as they are stored. Those that are packed so in the file stay
  /// there: they keep `file` open.
  static Result<WeightReader> open(std::shared_ptr<const TensorSource> file,
                                   std::optional<WeightType> type, int threads);

  /// Whether matrices are stored packed, under names of their own.
  [[nodiscard]] bool is_packed() const { return kvcast::is_packed(*file_); }

  /// Whether the file has it in its shape; reads no weight.
  Status check(const LayoutEntry& entry) const;
  /// `entry.parts` are the file's. Errors name the file, the tensor and the shape expected. Throw
  /// std::bad_alloc where memory runs out.
  Result<PackedMatrix> matrix(const LayoutEntry& entry) const;
  Result<PackedMatrix> matrix(const LayoutEntry& entry, WeightType type) const;
  /// What matrix(entry) makes of it.
  Result<WeightType> type_of(const LayoutEntry& entry) const;
  /// All elements, row-major, of a matrix or a vector.
  Result<std::vector<float>> floats(const LayoutEntry& entry) const;

 private:
  WeightReader(std::shared_ptr<const TensorSource> file, std::optional<WeightType> type,
               int threads)
      : file_(std::move(file)), type_(type), threads_(threads) {}
  /// The part, of k columns, as it is packed.
  Result<PackedMatrix> read_packed(const TensorPart& part, int64_t k) const;
  /// The tensors that the parts lie in, of the shapes that they have to have.
  Result<std::vector<TensorView>> tensors_of(const LayoutEntry& entry) const;

  std::shared_ptr<const TensorSource> file_;
  std::optional<WeightType> type_;
  int threads_;
};

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

// One or several mapped files seen as one set of named tensors, whatever their format.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "io/tensor.h"
#include "kvcast/result.h"

namespace kvcast {

/// What a reader found, everything checked when the files were opened: sizes, offsets, overlaps,
/// shapes against byte counts, duplicate names. Immutable afterwards and safe to share between
/// threads. Views live as long as this object. A format is a subclass that fills it.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  TensorSource(const TensorSource&) = delete;
  TensorSource& operator=(const TensorSource&) = delete;

  /// By name; shapes as in a Hugging Face checkpoint: [rows, columns], a row's elements together.
  [[nodiscard]] const std::map<std::string, TensorView, std::less<>>& tensors() const {
    return tensors_;
  }
  [[nodiscard]] bool contains(std::string_view name) const { return tensors_.contains(name); }

  /// The tensor, or an error that names the file and the tensor.
  Result<TensorView> find(std::string_view name) const;

  /// The tensor if it has exactly this shape; otherwise an error that names file, tensor,
  /// expectation and what was found.
  Result<TensorView> find_shaped(std::string_view name, std::span<const int64_t> shape) const;

  /// The same for a type that to_float converts only.
  Result<TensorView> find_float(std::string_view name, std::span<const int64_t> shape) const;

  /// The file that errors about this set of tensors should name.
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Free-form string pairs that the files carry.
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }

 protected:
  TensorSource() = default;

  std::filesystem::path path_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace kvcast

#include "io/tensor_source.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/macros.h"

namespace kvcast {

Result<TensorView> TensorSource::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return fail(fmt::format("{}: tensor {}: missing", path_.string(), name));
  }
  return found->second;
}

Result<TensorView> TensorSource::find_shaped(std::string_view name,
                                             std::span<const int64_t> shape) const {
  KVCAST_TRY(TensorView tensor, find(name));
  if (std::ranges::equal(tensor.shape, shape)) return tensor;
  return fail(fmt::format("{}: tensor {}: shape {}, expected {}", path_.string(), name,
                          shape_text(tensor.shape), shape_text(shape)));
}

Result<TensorView> TensorSource::find_float(std::string_view name,
                                            std::span<const int64_t> shape) const {
  KVCAST_TRY(TensorView tensor, find_shaped(name, shape));
  if (!is_float(tensor.dtype)) {
    return fail(fmt::format("{}: tensor {}: dtype {}, expected F32, F16 or BF16", path_.string(),
                            name, dtype_name(tensor.dtype)));
  }
  return tensor;
}

}  // namespace kvcast

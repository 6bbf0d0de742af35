#include "train/tensor_io.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "train/data/error.h"

namespace kvcast::train {

Tensor to_tensor(const TensorView& view) {
  if (view.dtype == DType::kI64) {
    Tensor tensor = at::empty(view.shape, at::kLong);
    std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
    return tensor;
  }
  Tensor tensor = at::empty(view.shape, at::kFloat);
  to_float(view, {tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel())});
  return tensor;
}

TensorMap read_parameters(const Safetensors& file, const std::vector<ParameterSpec>& specs,
                          std::string (*stored_name)(std::string_view)) {
  TensorMap values;
  for (const auto& spec : specs) {
    values.emplace(spec.name,
                   to_tensor(unwrap(file.find_float(stored_name(spec.name), spec.shape))));
  }
  return values;
}

TensorMap read_parameters(const std::map<std::string, FloatTensor>& tensors,
                          const std::vector<ParameterSpec>& specs,
                          std::string (*stored_name)(std::string_view)) {
  TensorMap values;
  for (const auto& spec : specs) {
    const FloatTensor& tensor = tensors.at(stored_name(spec.name));
    Tensor value = at::empty(tensor.shape, at::kFloat);
    std::ranges::copy(tensor.values, value.data_ptr<float>());
    values.emplace(spec.name, std::move(value));
  }
  return values;
}

void write_tensors(const std::filesystem::path& file, const TensorMap& tensors, DType dtype,
                   const std::map<std::string, std::string>& metadata) {
  const auto float_type = dtype == DType::kBF16 ? at::kBFloat16 : at::kFloat;
  std::vector<Tensor> owners;  // keeps the bytes alive until they are written
  std::vector<TensorToWrite> to_write;
  for (const auto& [name, tensor] : tensors) {
    const bool is_float = tensor.is_floating_point();
    owners.push_back(tensor.detach().to(at::kCPU, is_float ? float_type : at::kLong).contiguous());
    const Tensor& owner = owners.back();
    to_write.push_back({name,
                        is_float ? dtype : DType::kI64,
                        owner.sizes().vec(),
                        {static_cast<const std::byte*>(owner.data_ptr()), owner.nbytes()}});
  }
  unwrap(write_safetensors(file, to_write, metadata));
}

}  // namespace kvcast::train

#include "train/tensor_io.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/mapped_file.h"
#include "io/json.h"
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

TensorMap read_parameters(const Safetensors& file, const std::vector<ParameterSpec>& specs) {
  TensorMap values;
  for (const auto& spec : specs) {
    values.emplace(spec.name, to_tensor(unwrap(file.find_float(spec.name, spec.shape))));
  }
  return values;
}

TensorMap read_parameters(const std::map<std::string, FloatTensor>& tensors,
                          const std::vector<ParameterSpec>& specs) {
  TensorMap values;
  for (const auto& spec : specs) {
    const FloatTensor& tensor = tensors.at(spec.name);
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

namespace {

std::string shard_name(const std::string& stem, size_t i, size_t n) {
  return n == 1 ? stem + ".safetensors"
                : fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, n);
}

int64_t stored_bytes(const Tensor& tensor, DType dtype) {
  const DType stored = tensor.is_floating_point() ? dtype : DType::kI64;
  return tensor.numel() * static_cast<int64_t>(dtype_size(stored));
}

/// Consecutive tensors, as many to a shard as fit.
std::vector<TensorMap> cut_into_shards(const TensorMap& tensors, DType dtype, int64_t shard_bytes) {
  std::vector<TensorMap> shards(1);
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    const int64_t more = stored_bytes(tensor, dtype);
    if (!shards.back().empty() && bytes + more > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().emplace(name, tensor);
    bytes += more;
  }
  return shards;
}

}  // namespace

void write_sharded_tensors(const std::filesystem::path& directory, const std::string& stem,
                           const TensorMap& tensors, DType dtype, int64_t shard_bytes,
                           const std::map<std::string, std::string>& metadata) {
  const auto shards = cut_into_shards(tensors, dtype, shard_bytes);
  Json weight_map = Json::object();
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string file = shard_name(stem, i, shards.size());
    write_tensors(directory / file, shards[i], dtype, metadata);
    for (const auto& [name, tensor] : shards[i]) {
      weight_map[name] = file;
      total += stored_bytes(tensor, dtype);
    }
  }
  if (shards.size() == 1) return;
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  unwrap(
      write_file_atomically(directory / (stem + ".safetensors.index.json"), index.dump(1) + "\n"));
}

TensorMap read_sharded_tensors(const std::filesystem::path& directory, const std::string& stem) {
  std::set<std::string> files = {stem + ".safetensors"};
  const auto index_file = directory / (stem + ".safetensors.index.json");
  if (std::filesystem::exists(index_file)) {
    const Json index = unwrap(read_json_object(index_file));
    files.clear();
    try {
      for (const auto& [name, file] : index.at("weight_map").items()) {
        files.insert(std::filesystem::path(file.get<std::string>()).filename());
      }
    } catch (const Json::exception& error) {
      throw TrainError(
          fmt::format("{}: no index of shards: {}", index_file.string(), error.what()));
    }
  }
  TensorMap tensors;
  for (const auto& file : files) {
    const auto shard = unwrap(Safetensors::open(directory / file));
    for (const auto& [name, view] : shard->tensors()) tensors.emplace(name, to_tensor(view));
  }
  return tensors;
}

}  // namespace kvcast::train

// The parts of libtorch that the trainer uses, and the differences between the two versions that it
// is built against: Debian's 1.13 (CPU) and PyTorch 2.x (CPU or CUDA).
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#define KVCAST_TORCH_AT_LEAST(major, minor) \
  (TORCH_VERSION_MAJOR > (major) ||         \
   (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

namespace kvcast::train {

using at::Tensor;

/// Tensors by name, in a fixed order.
using TensorMap = std::map<std::string, Tensor, std::less<>>;

inline Tensor zeros_f32(at::IntArrayRef shape, const at::Device& device) {
  return at::zeros(shape, at::TensorOptions().dtype(at::kFloat).device(device));
}

}  // namespace kvcast::train

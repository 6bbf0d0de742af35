// The trained parameters as two flat f32 buffers. One buffer means one cast to bf16, one gradient
// norm, one AdamW update and (several processes) one all-reduce a step instead of one per tensor;
// small models are bound by the number of launches, not by arithmetic.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/torch.h"

namespace kvcast::train {

/// How a parameter starts when no weights are given.
enum class Init {
  kOnes,     ///< norms
  kZeros,    ///< biases
  kNormal,   ///< N(0, scale^2)
  kUniform,  ///< U(-scale, scale): PyTorch's default linear initialisation
};

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  Init init = Init::kNormal;
  double scale = 0.02;

  [[nodiscard]] int64_t size() const;
  /// Weight decay applies to matrices only (method §4).
  [[nodiscard]] bool is_matrix() const { return shape.size() > 1; }
};

/// `specs` with `prefix` put before every name.
std::vector<ParameterSpec> with_prefix(std::string_view prefix, std::vector<ParameterSpec> specs);

/// Fresh values on the CPU, deterministic by seed and independent of the order of creation: every
/// tensor has a generator of its own, seeded by (seed, name).
TensorMap initial_values(const std::vector<ParameterSpec>& specs, uint64_t seed);

class FlatParameters {
 public:
  /// Copies `values` (f32, one for each spec's name) into the buffers on `device`.
  FlatParameters(std::vector<ParameterSpec> specs, const TensorMap& values,
                 const at::Device& device);

  /// The parameters for a forward pass in `compute`, connected to the buffers by autograd. Valid
  /// for one step.
  [[nodiscard]] TensorMap views(at::ScalarType compute) const;

  /// The f32 master values, views of the buffers without autograd.
  [[nodiscard]] TensorMap master_values() const { return split_by_name(matrices_, vectors_); }
  /// Overwrites the master values; `values` must have one of the right shape for each name.
  void assign(const TensorMap& values);
  /// Splits buffers laid out like matrices() and vectors(), e.g. gradients or AdamW's moments.
  [[nodiscard]] TensorMap split_by_name(const Tensor& matrices, const Tensor& vectors) const;
  /// The gradients of the last backward pass by name; zeros where there is none.
  [[nodiscard]] TensorMap gradients() const;

  [[nodiscard]] const std::vector<ParameterSpec>& specs() const { return specs_; }
  [[nodiscard]] int64_t count() const;
  [[nodiscard]] const Tensor& matrices() const { return matrices_; }  // [padded sum], a leaf
  [[nodiscard]] const Tensor& vectors() const { return vectors_; }    // [padded sum], a leaf

 private:
  std::vector<ParameterSpec> specs_;
  Tensor matrices_, vectors_;
};

}  // namespace kvcast::train

#include "train/parameters.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "train/data/error.h"
#include "train/data/random.h"

namespace kvcast::train {
namespace {

/// Every tensor starts on a multiple of this, so that bf16 views stay aligned for matrix products.
constexpr int64_t kAlignment = 64;

int64_t padded(int64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

/// Lengths of one buffer's slots, padding included.
std::vector<int64_t> slots(const std::vector<ParameterSpec>& specs, bool matrices) {
  std::vector<int64_t> lengths;
  for (const auto& spec : specs) {
    if (spec.is_matrix() == matrices) lengths.push_back(padded(spec.size()));
  }
  return lengths;
}

int64_t sum(const std::vector<int64_t>& values) {
  int64_t total = 0;
  for (int64_t value : values) total += value;
  return total;
}

Tensor shaped(const Tensor& slot, const ParameterSpec& spec) {
  const bool exact = slot.size(0) == spec.size();
  return (exact ? slot : slot.narrow(0, 0, spec.size())).view(spec.shape);
}

}  // namespace

int64_t ParameterSpec::size() const {
  int64_t product = 1;
  for (int64_t dimension : shape) product *= dimension;
  return product;
}

std::vector<ParameterSpec> with_prefix(std::string_view prefix, std::vector<ParameterSpec> specs) {
  for (auto& spec : specs) spec.name.insert(0, prefix);
  return specs;
}

TensorMap initial_values(const std::vector<ParameterSpec>& specs, uint64_t seed) {
  TensorMap values;
  for (const auto& spec : specs) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(mix(seed, hash_text(spec.name)));
    Tensor value = at::empty(spec.shape, at::kFloat);
    switch (spec.init) {
      case Init::kOnes:
        value.fill_(1.0);
        break;
      case Init::kZeros:
        value.zero_();
        break;
      case Init::kNormal:
        value.normal_(0.0, spec.scale, generator);
        break;
      case Init::kUniform:
        value.uniform_(-spec.scale, spec.scale, generator);
        break;
    }
    values.emplace(spec.name, value);
  }
  return values;
}

FlatParameters::FlatParameters(std::vector<ParameterSpec> specs, const TensorMap& values,
                               const at::Device& device)
    : specs_(std::move(specs)) {
  matrices_ = zeros_f32({sum(slots(specs_, true))}, device).set_requires_grad(true);
  vectors_ = zeros_f32({sum(slots(specs_, false))}, device).set_requires_grad(true);
  assign(values);
}

void FlatParameters::assign(const TensorMap& values) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, destination] : master_values()) {
    const auto value = values.find(name);
    if (value == values.end() || value->second.sizes() != destination.sizes()) {
      throw TrainError("no fitting value for parameter " + name);
    }
    Tensor(destination).copy_(value->second);
  }
}

TensorMap FlatParameters::split_by_name(const Tensor& matrices, const Tensor& vectors) const {
  const auto matrix_slots = matrices.detach().split_with_sizes(slots(specs_, true));
  const auto vector_slots = vectors.detach().split_with_sizes(slots(specs_, false));
  TensorMap result;
  size_t matrix = 0, vector = 0;
  for (const auto& spec : specs_) {
    const Tensor& slot = spec.is_matrix() ? matrix_slots[matrix++] : vector_slots[vector++];
    result.emplace(spec.name, shaped(slot, spec));
  }
  return result;
}

TensorMap FlatParameters::views(at::ScalarType compute) const {
  const auto matrix_slots = matrices_.to(compute).split_with_sizes(slots(specs_, true));
  const auto vector_slots = vectors_.to(compute).split_with_sizes(slots(specs_, false));
  TensorMap result;
  size_t matrix = 0, vector = 0;
  for (const auto& spec : specs_) {
    const Tensor& slot = spec.is_matrix() ? matrix_slots[matrix++] : vector_slots[vector++];
    result.emplace(spec.name, shaped(slot, spec));
  }
  return result;
}

TensorMap FlatParameters::gradients() const {
  const auto gradient = [](const Tensor& leaf) {
    return leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
  };
  return split_by_name(gradient(matrices_), gradient(vectors_));
}

int64_t FlatParameters::count() const {
  int64_t total = 0;
  for (const auto& spec : specs_) total += spec.size();
  return total;
}

}  // namespace kvcast::train

// `kvcast-train probe`: one training step's losses and gradients on a given batch, so that another
// implementation's numbers can be compared.
#pragma once

#include <filesystem>
#include <optional>

#include "io/json.h"
#include "train/kvp_loss.h"

namespace kvcast::train {

struct ProbeOptions {
  std::filesystem::path bundle;
  std::filesystem::path batch;  ///< safetensors with input_ids and targets, [B, T] I64
  KvpLossOptions loss;
  std::optional<double> lambda_consistency;  ///< none: the paper's best, 1 / n_B
  at::Device device = at::kCPU;
  at::ScalarType compute = at::kFloat;  ///< of matrix products
  std::filesystem::path out;            ///< if set: logits, caches and gradients as safetensors
};

struct ProbeResult {
  Json report;  ///< "losses" and "grad_norms"
  TensorMap
      tensors;  ///< train/..., exact/logits, auxiliary/logits, grad/...; [B, heads, T, head_dim]
};

ProbeResult probe(const ProbeOptions& options);

}  // namespace kvcast::train

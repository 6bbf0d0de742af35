// The CUDA kernels as differentiable operations, for bf16 tensors on a GPU. ops.cpp and
// cross_entropy.cpp choose between these and plain libtorch; what each computes is said there.
#pragma once

#include <utility>

#include "train/ops.h"
#include "train/torch.h"

namespace kvcast::train::cuda {

/// True if the kernels take x: bf16, on a GPU, the last dimension a multiple of 8.
bool takes(const Tensor& x);
/// ... for add_rms_norm, and for head_norm_rope: a width that they are compiled for.
bool takes_norm(const Tensor& x);
bool takes_heads(const Tensor& x);

/// {x + delta, its norm}; with an undefined delta the first is x itself.
SumAndNorm add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& weight, double eps);

/// x [B, T, heads, head_dim], heads of a row adjacent. `weight` or `rope` may be missing.
Tensor head_norm_rope(const Tensor& x, const Tensor& weight, double eps, const RopeTable* rope,
                      int64_t first);

Tensor swiglu(const Tensor& gate_up);

/// Replaces logits [rows, vocab] by their gradient if asked to; {nll, log_sum_exp}, f32 [rows]
/// each.
std::pair<Tensor, Tensor> cross_entropy_(Tensor& logits, const Tensor& targets,
                                         const Tensor& row_weights, double z_loss,
                                         bool write_gradient);

/// distillation.h's losses of rows, f32 [rows] each.
struct DistilledRows {
  Tensor nll, log_sum_exp, kl;
};
/// Replaces student [rows, vocab] by its gradient if asked to; lambdas as in DistillationOptions.
DistilledRows distillation_(Tensor& student, const Tensor& teacher, const Tensor& targets,
                            const Tensor& row_weights, double lambda_cross_entropy, double z_loss,
                            double lambda_kl, bool write_gradient);

}  // namespace kvcast::train::cuda

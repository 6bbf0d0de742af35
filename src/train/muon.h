// Muon's update (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; scaled as in Liu et
// al. 2025, arXiv 2502.16982): the momentum of a matrix with its singular values made about equal.
#pragma once

#include "train/torch.h"

namespace kvcast::train {

/// matrices [count, n, k] -> U Vᵀ of each, about: singular values between 0.6 and 1.3. Five
/// Newton-Schulz iterations in bf16 on a GPU, f32 on a CPU; nothing waits for the device.
Tensor orthogonalised(const Tensor& matrices);

/// What orthogonalised [n, k] is multiplied by so that its elements are as large as AdamW's steps.
double muon_scale(int64_t n, int64_t k);

}  // namespace kvcast::train

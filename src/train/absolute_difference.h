// The L1 consistency term of method §4.
#pragma once

#include "train/torch.h"

namespace kvcast::train {

/// The mean of |predicted - target| over a row, summed over rows with `row_weights` (f32 [B * T]):
/// a scalar f32. predicted and target [B, T, heads, head_dim]; gradients for predicted alone. Keeps
/// its inputs and nothing of its own for the backward pass.
Tensor mean_absolute_difference(const Tensor& predicted, const Tensor& target,
                                const Tensor& row_weights);

}  // namespace kvcast::train

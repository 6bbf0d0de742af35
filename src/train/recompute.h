// Activation checkpointing (Chen et al. 2016, arXiv 1604.06174): less memory for one more forward
// pass.
#pragma once

#include <functional>

#include "train/torch.h"

namespace kvcast::train {

using Tensors = std::vector<Tensor>;

/// function(inputs), differentiable, without keeping what it makes on the way: the backward pass
/// calls it once more. `function` must be deterministic and reach every tensor that needs a
/// gradient through its argument; inputs may be undefined, outputs may not.
Tensors recomputed(std::function<Tensors(const Tensors&)> function, const Tensors& inputs);

}  // namespace kvcast::train

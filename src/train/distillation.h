// Cross-entropy and the divergence from a teacher's distribution in one pass over the vocabulary,
// without ever holding the f32 logits of a whole batch.
#pragma once

#include "train/cross_entropy.h"

namespace kvcast::train {

struct DistillationOptions {
  double lambda_cross_entropy = 1.0;  ///< on cross_entropy + z_loss
  double lambda_kl = 1.0;             ///< on KL(teacher || student)
  CrossEntropyOptions cross_entropy;
  Tensor row_weights = {};  ///< f32 [rows]: how much each counts; undefined: all alike
};

struct Distillation {
  Tensor total;  ///< scalar, differentiable: lambda_cross_entropy (ce + z) + lambda_kl kl
  CrossEntropy cross_entropy;  ///< its `total` is detached here
  Tensor kl;                   ///< scalar, detached: nats, weighted mean over counted targets
};

/// student and teacher [rows, model_dim]: hidden states after the final norm, in front of the same
/// lm_head [vocab, model_dim], which must not require gradients; targets [rows] int64. Gradients
/// go to `student` alone. The cross-entropy's terms are those of linear_cross_entropy.
Distillation linear_distillation(const Tensor& student, const Tensor& teacher,
                                 const Tensor& lm_head, const Tensor& targets,
                                 const DistillationOptions& options);

}  // namespace kvcast::train

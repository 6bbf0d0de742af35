// Cross-entropy with the z-loss (method §4), without ever holding the f32 logits of a whole batch.
#pragma once

#include "train/torch.h"

namespace kvcast::train {

struct CrossEntropyOptions {
  double z_loss = 1e-4;         ///< weight of mean(logsumexp^2)
  int64_t ignore_index = -100;  ///< targets with this value count in no term
  int64_t chunk_elements = 0;   ///< logits held at a time, rows * vocab; 0: chosen by the device
};

struct CrossEntropy {
  Tensor total;          ///< scalar: cross_entropy + z_loss; the differentiable one
  Tensor cross_entropy;  ///< scalar, detached: mean over counted targets
  Tensor z_loss;         ///< scalar, detached: weighted
};

/// hidden [rows, model_dim] (after the final norm), lm_head [vocab, model_dim], targets [rows]
/// int64.
///
/// The z-loss is computed as the paper's code does: it zeroes the logits of ignored rows, so each
/// of them adds the constant z_loss * log(vocab)^2 / counted rows. That constant has no gradient
/// and is zero when nothing is ignored.
CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& lm_head,
                                  const Tensor& targets, const CrossEntropyOptions& options);

/// -log p(target) of every row, f32 [rows]; no gradients.
Tensor target_nll(const Tensor& hidden, const Tensor& lm_head, const Tensor& targets);

}  // namespace kvcast::train

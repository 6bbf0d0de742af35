// The training step of KV prediction (method §4, Fig. 2c).
#pragma once

#include "train/cross_entropy.h"
#include "train/model.h"
#include "train/predictor.h"

namespace kvcast::train {

struct KvpLossOptions {
  double lambda_base = 1.0;
  double lambda_auxiliary = 1.0;
  double lambda_consistency = 1.0;  ///< on the sum over layers; the paper's best is 1 / n_B
  CrossEntropyOptions cross_entropy;
};

struct KvpLosses {
  Tensor total;  ///< scalar, differentiable
  CrossEntropy base, auxiliary;
  Tensor key_consistency, value_consistency;  ///< [base layers]: mean |K̂ - K|, mean |V̂ - V|
};

/// What the step computed on the way, for tests and `probe`.
struct KvpTrace {
  Tensor auxiliary_hidden, base_hidden;  // [B, T, model_dim], after the final norm
  Cache predicted, target;
};

/// input_ids and targets [B, T]. The base must not require gradients.
KvpLosses kvp_loss(const Model& base, const Model& auxiliary, const Predictor& predictor,
                   const Tensor& input_ids, const Tensor& targets, const KvpLossOptions& options,
                   KvpTrace* trace = nullptr);

}  // namespace kvcast::train

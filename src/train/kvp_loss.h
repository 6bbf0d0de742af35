// The training step of KV prediction: the paper's (method §4, Fig. 2c), and what goes beyond it
// (method §10): the base run as at inference, its exact distribution as the teacher, attention
// outputs matched instead of keys and values.
#pragma once

#include "train/cross_entropy.h"
#include "train/data/recipe.h"
#include "train/model.h"
#include "train/predictor.h"

namespace kvcast::train {

struct KvpLossOptions {
  double lambda_base = 1.0;
  double lambda_auxiliary = 1.0;
  double lambda_consistency = 1.0;  ///< on the sum over layers; the paper's best is 1 / n_B
  double lambda_kl = 0.0;           ///< on KL(base exact || base on the predicted cache)
  Consistency consistency = Consistency::kL1;
  bool auxiliary_kv_only_last = false;  ///< its last layer gives K/V and nothing else: no LM loss
  CrossEntropyOptions cross_entropy = {};
};

/// How the base runs in one step.
struct KvpPass {
  /// 0: the paper's pass, all positions' keys and values replaced by predicted ones. Otherwise as
  /// at inference: this many positions are predicted, the base runs the rest with its own.
  int64_t predicted_tokens = 0;
  /// Prompt tokens that the base runs itself (kv-prediction:tail=N): the first N - 1 positions
  /// after the predicted ones are not scored.
  int64_t tail_tokens = 1;
};

struct KvpLosses {
  Tensor total;  ///< scalar, differentiable
  CrossEntropy base;
  CrossEntropy auxiliary;  ///< undefined with auxiliary_kv_only_last
  Tensor kl;               ///< scalar, detached; undefined without lambda_kl
  /// [base layers]; undefined unless the consistency is L1: mean |K̂ - K|, mean |V̂ - V|
  Tensor key_consistency, value_consistency;
  /// [base layers]; undefined unless the consistency is of attention outputs: |Ô - O|² / |O|²
  Tensor attention_consistency;
};

/// What the step computed on the way, for tests and `probe`.
struct KvpTrace {
  Tensor auxiliary_hidden;  // [B, T, model_dim], after the final norm
  Tensor base_hidden;       // likewise; with a split only of the positions the base ran
  Cache predicted, target;
};

/// input_ids and targets [B, T]. The base must not require gradients.
KvpLosses kvp_loss(const Model& base, const Model& auxiliary, const Predictor& predictor,
                   const Tensor& input_ids, const Tensor& targets, const KvpLossOptions& options,
                   const KvpPass& pass = {}, KvpTrace* trace = nullptr);

}  // namespace kvcast::train

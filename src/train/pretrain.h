// `pretrain` and `alone`: next-token prediction for one OpenELM-shaped model.
#pragma once

#include "model/config.h"
#include "train/trainer.h"

namespace kvcast::train {

/// A new model, or one to go on from.
TrainOutcome pretrain(const PretrainRecipe& recipe, const TrainControl& control);

/// The control of KV prediction: its auxiliary trained by itself on the same tokens.
TrainOutcome train_alone(const AloneRecipe& recipe, const TrainControl& control);

/// Floating-point operations of one token's forward pass through the layers' matrix products and
/// attention over `sequence_tokens` (causal), and of its LM head.
struct ForwardFlops {
  double layers = 0, lm_head = 0;
};
ForwardFlops forward_flops(const ModelConfig& config, int64_t sequence_tokens);

}  // namespace kvcast::train

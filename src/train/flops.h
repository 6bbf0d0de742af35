// Floating-point operations of training: matrix products and attention (causal), forward and
// backward. Recomputation counts for nothing.
#pragma once

#include "model/config.h"
#include "train/data/recipe.h"

namespace kvcast::train {

/// Of one token's forward pass through the layers over `sequence_tokens`, and of its LM head.
struct ForwardFlops {
  double layers = 0, lm_head = 0;
};
ForwardFlops forward_flops(const ModelConfig& config, int64_t sequence_tokens);

/// Of one token's step of next-token prediction.
double next_token_flops(const ModelConfig& config, int64_t sequence_tokens);

/// Of one token's step of KV prediction.
double kvp_flops(const ModelConfig& base, const ModelConfig& auxiliary,
                 const std::vector<int64_t>& layer_map, const KvpRecipe& recipe);

}  // namespace kvcast::train

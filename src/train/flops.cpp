#include "train/flops.h"

#include "model/layout.h"
#include "train/kvp_pass.h"

namespace kvcast::train {

ForwardFlops forward_flops(const ModelConfig& config, int64_t sequence_tokens) {
  ForwardFlops flops;
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    for (const Weight& weight : layer_weights(config, i)) {
      if (weight.is_matrix()) flops.layers += 2 * static_cast<double>(weight.elements());
    }
    const double attended = static_cast<double>(sequence_tokens) / 2;  // causal, on average
    flops.layers += 4 * static_cast<double>(config.query_width(i)) * attended;
  }
  flops.lm_head =
      2 * static_cast<double>(config.model_dim) * static_cast<double>(config.vocab_size);
  return flops;
}

double next_token_flops(const ModelConfig& config, int64_t sequence_tokens) {
  const auto forward = forward_flops(config, sequence_tokens);
  return 3.0 * (forward.layers + forward.lm_head);
}

double kvp_flops(const ModelConfig& base_config, const ModelConfig& auxiliary_config,
                 const std::vector<int64_t>& layer_map, const KvpRecipe& recipe) {
  const int64_t tokens = recipe.data.sequence_tokens;
  const auto auxiliary = forward_flops(auxiliary_config, tokens);
  const auto base = forward_flops(base_config, tokens);
  double predictor = 0;
  for (int64_t i = 0; i < base_config.n_layers(); ++i) {
    predictor += 4.0 * static_cast<double>(auxiliary_config.kv_width(layer_map[i])) *
                 static_cast<double>(base_config.kv_width(i));
  }
  // The auxiliary and the predictor forward and backward. An auxiliary without a loss of its own
  // may stop at the split (kvp_loss).
  const bool prefix_alone = recipe.auxiliary_kv_only_last && recipe.consistency != Consistency::kL1;
  const double read = prefix_alone ? mean_read_share(recipe) : 1.0;
  double flops = 3.0 * read * (auxiliary.layers + predictor);
  if (!recipe.auxiliary_kv_only_last) flops += 3.0 * auxiliary.lm_head;
  // The base forward, and backward to its inputs, which costs as much; and the exact pass where a
  // loss needs it.
  flops += 2.0 * mean_base_share(recipe) * (base.layers + base.lm_head);
  if (recipe.lambda_kl > 0) flops += mean_base_share(recipe) * base.lm_head;
  const bool exact = recipe.lambda_kl > 0 || recipe.consistency != Consistency::kNone;
  return flops + (exact ? base.layers : 0.0);
}

}  // namespace kvcast::train

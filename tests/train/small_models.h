// Models small enough to check by hand, with random weights.
#pragma once

#include "model/architectures.h"
#include "train/kvp_loss.h"
#include "train/model.h"
#include "train/ops.h"
#include "train/predictor.h"

namespace kvcast::train {

inline double difference(const Tensor& a, const Tensor& b) {
  return (a - b).abs().max().item<double>();
}

inline ModelConfig small_config(int64_t layers = 3, int64_t model_dim = 48) {
  return make_openelm_config({.n_layers = layers,
                              .model_dim = model_dim,
                              .head_dim = 8,
                              .gqa_groups = 3,
                              .ffn_dim_divisor = 8,
                              .vocab_size = 50,
                              .max_context_tokens = 64});
}

inline Model small_model(const ModelConfig& config, uint64_t seed) {
  return bind_model(config, rope_table(config, 64, at::kCPU),
                    initial_values(model_parameter_specs(config), seed), "");
}

/// Reads the model itself.
inline Predictor identity_predictor(const ModelConfig& config) {
  Predictor identity;
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    identity.layer_map.push_back(i);
    const LinearTransform transform{at::eye(config.kv_width(i)), at::zeros({config.kv_width(i)})};
    identity.key_transforms.push_back(transform);
    identity.value_transforms.push_back(transform);
  }
  return identity;
}

inline Predictor random_predictor(const ModelConfig& base, const ModelConfig& auxiliary,
                                  const std::vector<int64_t>& layer_map) {
  return bind_predictor(
      layer_map, initial_values(predictor_parameter_specs(base, auxiliary, layer_map), 5), "");
}

}  // namespace kvcast::train

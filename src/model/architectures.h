// Shapes by name, layer maps and pairs of base and auxiliary, and the arithmetic of OpenELM's
// layer-wise scaling (method §2).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "model/config.h"
#include "model/forecast_plan.h"

namespace kvcast {

/// OpenELM's layer-wise scaling (method §2): qkv multipliers 0.5..1, ffn multipliers 0.5..4 over
/// `n_layers`; query heads come in groups of `gqa_groups` per KV head.
struct OpenElmShape {
  int64_t n_layers = 16;
  int64_t model_dim = 1280;
  int64_t head_dim = 64;
  int64_t gqa_groups = 4;
  int64_t ffn_dim_divisor = 256;
  int64_t vocab_size = 32000;
  int64_t max_context_tokens = 2048;
};
ModelConfig make_openelm_config(const OpenElmShape& shape);

/// "openelm-270m", "openelm-450m", "openelm-1.1b", "openelm-3b", and layer-pruned forms such as
/// "openelm-1.1b-lp-0.50" (method §2). Unknown names are an error that lists the known ones.
Result<ModelConfig> named_architecture(std::string_view name);

/// Which layers of the base a layer-pruned auxiliary keeps: 0.75 drops i mod 4 == 3, 0.50 keeps the
/// even ones, 0.25 keeps i mod 4 == 0 (method §2).
Result<std::vector<int64_t>> layer_pruned_kept_layers(int64_t n_layers, std::string_view fraction);

/// The base config with only `kept` layers.
ModelConfig prune_layers(const ModelConfig& base, const std::vector<int64_t>& kept);

/// Layer maps by the rules of method §5. Entry i is the auxiliary layer that base layer i reads.
std::vector<int64_t> canonical_layer_map(int64_t base_layers, int64_t auxiliary_layers);
std::vector<int64_t> layer_pruned_layer_map(int64_t base_layers, const std::vector<int64_t>& kept);

/// `auxiliary` has no layers where the base alone reads the prompt.
struct ModelPair {
  ModelConfig base, auxiliary;
  ForecastPlan plan;  ///< no inputs: a base alone
};

/// Two named architectures (see named_architecture) with the layer map of method §5: the
/// layer-pruned one if the auxiliary is a layer-pruned form of the base, else the canonical one.
Result<ModelPair> named_pair(std::string_view base, std::string_view auxiliary);

/// `value` rounded to a multiple of `divisor`, at least `divisor`, never below 0.9 * value.
/// `value` must be finite and below 2^52.
int64_t make_divisible(double value, int64_t divisor);

/// round(linspace(first, last, count), 2) as numpy computes it.
std::vector<double> scaling_multipliers(double first, double last, int64_t count);

}  // namespace kvcast

// The predictor P (method §3, step 2): one linear map with bias per base layer for keys and one
// for values.
#pragma once

#include <vector>

#include "train/model.h"

namespace kvcast::train {

struct LinearTransform {
  Tensor weight;  // [base KV width, auxiliary KV width]
  Tensor bias;    // [base KV width]
};

struct Predictor {
  std::vector<int64_t> layer_map;  // [base layers] -> auxiliary layer
  std::vector<LinearTransform> key_transforms;
  std::vector<LinearTransform> value_transforms;
};

/// "key_transforms.{i}.weight" and so on, PyTorch's default linear initialisation.
std::vector<ParameterSpec> predictor_parameter_specs(const ModelConfig& base,
                                                     const ModelConfig& auxiliary,
                                                     const std::vector<int64_t>& layer_map);

Predictor bind_predictor(const std::vector<int64_t>& layer_map, const TensorMap& tensors,
                         std::string_view prefix);

/// The base's predicted cache from the auxiliary's: K̂_i = W^K_i K_A[j_i] + b^K_i through the
/// base's k_norm, V̂_i = W^V_i V_A[j_i] + b^V_i.
Cache predict_cache(const Predictor& predictor, const Model& base, const Cache& auxiliary);

}  // namespace kvcast::train

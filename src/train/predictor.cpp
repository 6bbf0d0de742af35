#include "train/predictor.h"

#include <cmath>

#include "train/data/error.h"

namespace kvcast::train {
namespace {

/// x [B, T, auxiliary heads, auxiliary head_dim] -> [B, T, base heads, base head_dim]
Tensor transform(const LinearTransform& t, const Tensor& x, int64_t head_dim) {
  const Tensor rows = x.reshape({-1, x.size(2) * x.size(3)});  // heads concatenated
  return at::addmm(t.bias.to(rows.scalar_type()), rows, t.weight.t())
      .view({x.size(0), x.size(1), -1, head_dim});
}

}  // namespace

std::vector<ParameterSpec> predictor_parameter_specs(const ModelConfig& base,
                                                     const ModelConfig& auxiliary,
                                                     const std::vector<int64_t>& layer_map) {
  std::vector<ParameterSpec> specs;
  for (const char* kind : {"key_transforms.", "value_transforms."}) {
    for (int64_t i = 0; i < base.n_layers(); ++i) {
      const int64_t in = auxiliary.kv_width(layer_map[i]), out = base.kv_width(i);
      const double bound = 1.0 / std::sqrt(static_cast<double>(in));
      const std::string name = kind + std::to_string(i);
      specs.push_back({name + ".weight", {out, in}, Init::kUniform, bound});
      specs.push_back({name + ".bias", {out}, Init::kUniform, bound});
    }
  }
  return specs;
}

Predictor bind_predictor(const std::vector<int64_t>& layer_map, const TensorMap& tensors,
                         std::string_view prefix) {
  const auto find = [&](const std::string& name) {
    const auto found = tensors.find(std::string(prefix) + name);
    if (found == tensors.end()) throw TrainError("no tensor " + std::string(prefix) + name);
    return found->second;
  };
  Predictor predictor{.layer_map = layer_map, .key_transforms = {}, .value_transforms = {}};
  for (size_t i = 0; i < layer_map.size(); ++i) {
    const std::string n = std::to_string(i);
    predictor.key_transforms.push_back(
        {find("key_transforms." + n + ".weight"), find("key_transforms." + n + ".bias")});
    predictor.value_transforms.push_back(
        {find("value_transforms." + n + ".weight"), find("value_transforms." + n + ".bias")});
  }
  return predictor;
}

Cache predict_cache(const Predictor& predictor, const Model& base, const Cache& auxiliary) {
  const int64_t head_dim = base.config.head_dim;
  Cache predicted;
  for (size_t i = 0; i < predictor.layer_map.size(); ++i) {
    const LayerCache& read = auxiliary[predictor.layer_map[i]];
    LayerCache layer;
    layer.key_prenorm = transform(predictor.key_transforms[i], read.key_prenorm, head_dim);
    layer.key = base.config.normalize_qk
                    ? rms_norm(layer.key_prenorm, base.layers[i].k_norm, base.config.norm_eps)
                    : layer.key_prenorm;
    layer.value = transform(predictor.value_transforms[i], read.value, head_dim);
    predicted.push_back(std::move(layer));
  }
  return predicted;
}

}  // namespace kvcast::train

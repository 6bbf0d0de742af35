// A model's tensors: their names, how they begin, and the model that reads them.
#include <algorithm>
#include <cmath>

#include "train/data/error.h"
#include "train/model.h"

namespace kvcast::train {
namespace {

constexpr double kInitStd = 0.02;

constexpr TensorName kTrainedNames[] = {
    {Role::kEmbeddings, "token_embeddings.weight"},
    {Role::kLmHead, "lm_head.weight"},
    {Role::kFinalNorm, "norm.weight"},
    {Role::kAttentionNorm, "layers.{}.attn_norm.weight"},
    {Role::kQuery, "layers.{}.attn.qkv_proj.weight"},
    {Role::kKey, "layers.{}.attn.qkv_proj.weight"},
    {Role::kValue, "layers.{}.attn.qkv_proj.weight"},
    {Role::kQueryBias, "layers.{}.attn.qkv_proj.bias"},
    {Role::kKeyBias, "layers.{}.attn.qkv_proj.bias"},
    {Role::kValueBias, "layers.{}.attn.qkv_proj.bias"},
    {Role::kQueryNorm, "layers.{}.attn.q_norm.weight"},
    {Role::kKeyNorm, "layers.{}.attn.k_norm.weight"},
    {Role::kAttentionOutput, "layers.{}.attn.out_proj.weight"},
    {Role::kFeedForwardNorm, "layers.{}.ffn_norm.weight"},
    {Role::kGate, "layers.{}.ffn.proj_1.weight"},
    {Role::kUp, "layers.{}.ffn.proj_1.weight"},
    {Role::kDown, "layers.{}.ffn.proj_2.weight"},
};

Tensor& tensor_of(Model& model, const LayoutEntry& entry) {
  if (entry.role == Role::kEmbeddings) return model.token_embeddings;
  if (entry.role == Role::kLmHead) return model.lm_head;
  if (entry.role == Role::kFinalNorm) return model.norm;
  return model.layers[static_cast<size_t>(entry.layer)].*
         std::ranges::find(kLayerTensors, entry.role, &LayerTensor::role)->member;
}

}  // namespace

const StoredForm kTrainedForm = {.names = kTrainedNames};

std::vector<ParameterSpec> model_parameter_specs(const ModelConfig& config) {
  const double residual_std = kInitStd / std::sqrt(2.0 * static_cast<double>(config.n_layers()));
  std::vector<ParameterSpec> specs;
  for (const LayoutEntry& entry : tensor_layout(config, kTrainedForm, kTrainedForm)) {
    const bool to_residual = entry.role == Role::kAttentionOutput || entry.role == Role::kDown;
    if (entry.is_matrix()) {
      specs.push_back(
          {entry.name, entry.shape(), Init::kNormal, to_residual ? residual_std : kInitStd});
    } else {
      const bool is_bias = entry.role == Role::kQueryBias;
      specs.push_back({entry.name, entry.shape(), is_bias ? Init::kZeros : Init::kOnes, 1.0});
    }
  }
  return specs;
}

std::vector<ParameterSpec> layer_parameter_specs(const ModelConfig& config) {
  std::vector<ParameterSpec> specs = model_parameter_specs(config);
  std::erase_if(specs, [](const ParameterSpec& s) { return !s.name.starts_with("layers."); });
  return specs;
}

namespace {

Model bind(const ModelConfig& config, const RopeTable& rope, const TensorMap& tensors,
           std::string_view prefix, bool layers_alone) {
  Model model{.config = config, .rope = rope};
  model.layers.resize(static_cast<size_t>(config.n_layers()));
  for (const LayoutEntry& entry : tensor_layout(config, kTrainedForm, kTrainedForm)) {
    if (layers_alone && entry.layer < 0) continue;
    const auto found = tensors.find(std::string(prefix) + entry.name);
    if (found == tensors.end()) throw TrainError("no tensor " + std::string(prefix) + entry.name);
    tensor_of(model, entry) = found->second;
  }
  if (config.tied_embeddings) model.lm_head = model.token_embeddings;
  return model;
}

}  // namespace

Model bind_model(const ModelConfig& config, const RopeTable& rope, const TensorMap& tensors,
                 std::string_view prefix) {
  return bind(config, rope, tensors, prefix, /*layers_alone=*/false);
}

Model bind_layers(const ModelConfig& config, const RopeTable& rope, const TensorMap& tensors,
                  std::string_view prefix) {
  return bind(config, rope, tensors, prefix, /*layers_alone=*/true);
}

}  // namespace kvcast::train

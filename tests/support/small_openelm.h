// A model for tests that compare ways of computing the same.
#pragma once

#include <cstdint>
#include <vector>

#include "model/architectures.h"

namespace kvcast {

inline constexpr int64_t kSmallVocab = 211;

/// Big enough to have several panels, odd widths and GQA, small enough for the plain reference
/// kernels.
inline ModelConfig small_openelm(int64_t layers, int64_t model_dim, int64_t context_tokens = 1600) {
  return make_openelm_config({.n_layers = layers,
                              .model_dim = model_dim,
                              .head_dim = 16,
                              .gqa_groups = 2,
                              .ffn_dim_divisor = 16,
                              .vocab_size = kSmallVocab,
                              .max_context_tokens = context_tokens});
}

/// Tokens of its vocabulary; another `salt` begins with another one.
inline std::vector<int32_t> some_tokens(size_t count, int32_t salt = 0) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) {
    tokens.push_back(
        static_cast<int32_t>((i * 37 + 11 + static_cast<size_t>(salt) * 53) % kSmallVocab));
  }
  return tokens;
}

/// A base of six layers and an auxiliary of three, random.
inline Models small_pair(WeightType type, int threads) {
  const ModelConfig base = small_openelm(6, 96), auxiliary = small_openelm(3, 64);
  Models models = random_models(base, &auxiliary, canonical_layer_map(6, 3), type, threads);
  // As Model::load chooses: beside bf16 weights a bf16 cache.
  models.kv_type = type == WeightType::kF32 ? KvType::kF32 : KvType::kBf16;
  return models;
}

}  // namespace kvcast

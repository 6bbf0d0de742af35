#include "model/weights.h"

#include <fmt/format.h>

#include <array>
#include <cassert>
#include <cmath>
#include <new>

#include "base/macros.h"

namespace kvcast {
namespace {

SourceType source_type(DType dtype) {
  switch (dtype) {
    case DType::kBF16:
      return SourceType::kBf16;
    case DType::kF16:
      return SourceType::kF16;
    default:
      return SourceType::kF32;
  }
}

/// PackedMatrix::pack, with memory running out as everywhere else.
PackedMatrix pack_or_throw(const std::byte* rows, SourceType source, int64_t n, int64_t k,
                           WeightType type, int threads) {
  PackedMatrix packed = PackedMatrix::pack(rows, source, n, k, type, threads);
  if (packed.empty()) throw std::bad_alloc();
  return packed;
}

/// Reads tensors by name and packs them, keeping the options in one place.
class WeightReader {
 public:
  WeightReader(const Safetensors& checkpoint, WeightType type, int threads)
      : checkpoint_(checkpoint), type_(type), threads_(threads) {}

  Result<PackedMatrix> matrix(std::string_view name, int64_t n, int64_t k) const {
    KVCAST_TRY(const auto tensor, checkpoint_.find_float(name, std::array{n, k}));
    return pack(tensor.bytes.data(), tensor.dtype, n, k);
  }

  Result<std::vector<float>> vector(std::string_view name, int64_t n) const {
    KVCAST_TRY(const auto tensor, checkpoint_.find_float(name, std::array{n}));
    std::vector<float> values(static_cast<size_t>(n));
    to_float(tensor, values);
    return values;
  }

  /// qkv_proj holds all query rows, then the keys', then the values' (method §2).
  Status qkv(std::string_view name, const ModelConfig& config, int64_t layer,
             LayerWeights& out) const {
    const int64_t q = config.query_width(layer), kv = config.kv_width(layer);
    const int64_t k = config.model_dim;
    KVCAST_TRY(const auto tensor, checkpoint_.find_float(name, std::array{q + 2 * kv, k}));
    const auto row_bytes = static_cast<int64_t>(dtype_size(tensor.dtype)) * k;
    const std::byte* rows = tensor.bytes.data();
    out.q_proj = pack(rows, tensor.dtype, q, k);
    out.k_proj = pack(rows + q * row_bytes, tensor.dtype, kv, k);
    out.v_proj = pack(rows + (q + kv) * row_bytes, tensor.dtype, kv, k);
    return {};
  }

 private:
  PackedMatrix pack(const std::byte* rows, DType dtype, int64_t n, int64_t k) const {
    return pack_or_throw(rows, source_type(dtype), n, k, type_, threads_);
  }

  const Safetensors& checkpoint_;
  WeightType type_;
  int threads_;
};

Result<LayerWeights> load_layer(const WeightReader& reader, const ModelConfig& config, int64_t i) {
  const int64_t dim = config.model_dim, ffn = config.layers[i].ffn_dim;
  const auto name = [i](std::string_view suffix) { return layer_tensor_name(i, suffix); };
  LayerWeights layer;
  KVCAST_TRY(layer.attn_norm, reader.vector(name("attn_norm.weight"), dim));
  KVCAST_TRY(layer.ffn_norm, reader.vector(name("ffn_norm.weight"), dim));
  if (config.normalize_qk) {
    KVCAST_TRY(layer.q_norm, reader.vector(name("attn.q_norm.weight"), config.head_dim));
    KVCAST_TRY(layer.k_norm, reader.vector(name("attn.k_norm.weight"), config.head_dim));
  }
  KVCAST_CHECK(reader.qkv(name("attn.qkv_proj.weight"), config, i, layer));
  KVCAST_TRY(layer.out_proj,
             reader.matrix(name("attn.out_proj.weight"), dim, config.query_width(i)));
  KVCAST_TRY(layer.proj_1, reader.matrix(name("ffn.proj_1.weight"), 2 * ffn, dim));
  KVCAST_TRY(layer.proj_2, reader.matrix(name("ffn.proj_2.weight"), dim, ffn));
  return layer;
}

/// SplitMix64 (Steele et al. 2014): enough for weights that only have to be finite and unequal.
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15U);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

}  // namespace

Result<ModelWeights> load_weights(const Safetensors& checkpoint, const ModelConfig& config,
                                  WeightType type, int threads) {
  const WeightReader reader(checkpoint, type, threads);
  ModelWeights weights;
  KVCAST_TRY(weights.embeddings,
             reader.matrix(kEmbeddingsTensor, config.vocab_size, config.model_dim));
  if (!config.tied_embeddings) {
    KVCAST_TRY(weights.lm_head, reader.matrix(kLmHeadTensor, config.vocab_size, config.model_dim));
  }
  KVCAST_TRY(weights.final_norm, reader.vector(kFinalNormTensor, config.model_dim));
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    KVCAST_TRY(LayerWeights layer, load_layer(reader, config, i));
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

PackedMatrix random_matrix(int64_t n, int64_t k, WeightType type, int threads, uint64_t seed) {
  std::vector<float> source(static_cast<size_t>(n * k));
  const float scale = 1.0F / std::sqrt(static_cast<float>(k));
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < n; ++row) {
    uint64_t state = seed * 0x10001U + static_cast<uint64_t>(row) * 0x632be59bd9b4e019U;
    for (float& value :
         std::span(source).subspan(static_cast<size_t>(row * k), static_cast<size_t>(k))) {
      value = scale * (static_cast<float>(next_random(state) >> 40) * 0x1p-23F - 1.0F);
    }
  }
  return pack_or_throw(reinterpret_cast<const std::byte*>(source.data()), SourceType::kF32, n, k,
                       type, threads);
}

ModelWeights random_weights(const ModelConfig& config, WeightType type, int threads,
                            uint64_t seed) {
  const auto matrix = [&](int64_t n, int64_t k) {
    return random_matrix(n, k, type, threads, ++seed);
  };
  const int64_t dim = config.model_dim;
  const std::vector<float> ones(static_cast<size_t>(dim), 1.0F);
  const std::vector<float> head_ones(static_cast<size_t>(config.head_dim), 1.0F);
  ModelWeights weights;
  weights.embeddings = matrix(config.vocab_size, dim);
  if (!config.tied_embeddings) weights.lm_head = matrix(config.vocab_size, dim);
  weights.final_norm = ones;
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    LayerWeights layer;
    layer.attn_norm = layer.ffn_norm = ones;
    if (config.normalize_qk) layer.q_norm = layer.k_norm = head_ones;
    layer.q_proj = matrix(config.query_width(i), dim);
    layer.k_proj = matrix(config.kv_width(i), dim);
    layer.v_proj = matrix(config.kv_width(i), dim);
    layer.out_proj = matrix(dim, config.query_width(i));
    layer.proj_1 = matrix(2 * config.layers[i].ffn_dim, dim);
    layer.proj_2 = matrix(dim, config.layers[i].ffn_dim);
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

PackedMatrix pack_stacked(std::span<const TensorView> parts, int64_t k, WeightType type,
                          int threads) {
  int64_t n = 0;
  for (const TensorView& part : parts) n += part.shape[0];
  std::vector<float> stacked(static_cast<size_t>(n * k));
  std::span<float> rest(stacked);
  for (const TensorView& part : parts) {
    const auto count = static_cast<size_t>(part.element_count());
    assert(part.shape[1] == k && count <= rest.size());
    to_float(part, rest.first(count));
    rest = rest.subspan(count);
  }
  return pack_or_throw(reinterpret_cast<const std::byte*>(stacked.data()), SourceType::kF32, n, k,
                       type, threads);
}

int64_t ModelWeights::bytes() const {
  size_t total = embeddings.bytes() + lm_head.bytes() + final_norm.size() * sizeof(float);
  for (const LayerWeights& layer : layers) {
    total += layer.q_proj.bytes() + layer.k_proj.bytes() + layer.v_proj.bytes() +
             layer.out_proj.bytes() + layer.proj_1.bytes() + layer.proj_2.bytes();
    total += sizeof(float) * (layer.attn_norm.size() + layer.ffn_norm.size() + layer.q_norm.size() +
                              layer.k_norm.size());
  }
  return static_cast<int64_t>(total);
}

}  // namespace kvcast

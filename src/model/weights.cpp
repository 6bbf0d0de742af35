#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <span>

#include "base/macros.h"
#include "base/team.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

/// SplitMix64 (Steele et al. 2014): enough for weights that only have to be finite and unequal.
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15U);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

void add_layer_slots(LayerWeights& layer, const ModelConfig& config, int64_t i,
                     WeightSlots& slots) {
  const int64_t dim = config.model_dim, ffn = config.layers[i].ffn_dim;
  const int64_t q = config.query_width(i), kv = config.kv_width(i);
  const auto name = [i](std::string_view suffix) { return layer_tensor_name(i, suffix); };
  slots.vectors.push_back({&layer.attn_norm, name("attn_norm.weight"), dim});
  slots.vectors.push_back({&layer.ffn_norm, name("ffn_norm.weight"), dim});
  if (config.normalize_qk) {
    slots.vectors.push_back({&layer.q_norm, name("attn.q_norm.weight"), config.head_dim});
    slots.vectors.push_back({&layer.k_norm, name("attn.k_norm.weight"), config.head_dim});
  }
  // qkv_proj holds all query rows, then the keys', then the values' (method §2).
  const auto part = [&](std::string_view suffix, int64_t first_row, int64_t n) {
    return MatrixPart{name(suffix), name("attn.qkv_proj.weight"), q + 2 * kv, first_row, n, dim};
  };
  slots.matrices.push_back({&layer.q_proj, part("attn.q_proj.weight", 0, q)});
  slots.matrices.push_back({&layer.k_proj, part("attn.k_proj.weight", q, kv)});
  slots.matrices.push_back({&layer.v_proj, part("attn.v_proj.weight", q + kv, kv)});
  slots.matrices.push_back(
      {&layer.out_proj, MatrixPart::whole(name("attn.out_proj.weight"), dim, q)});
  slots.matrices.push_back(
      {&layer.proj_1, MatrixPart::whole(name("ffn.proj_1.weight"), 2 * ffn, dim)});
  slots.matrices.push_back({&layer.proj_2, MatrixPart::whole(name("ffn.proj_2.weight"), dim, ffn)});
}

}  // namespace

WeightSlots weight_slots(ModelWeights& weights, const ModelConfig& config) {
  const int64_t vocab = config.vocab_size, dim = config.model_dim;
  WeightSlots slots;
  slots.matrices.push_back(
      {&weights.embeddings, MatrixPart::whole(std::string(kEmbeddingsTensor), vocab, dim)});
  if (!config.tied_embeddings) {
    slots.matrices.push_back(
        {&weights.lm_head, MatrixPart::whole(std::string(kLmHeadTensor), vocab, dim)});
  }
  slots.vectors.push_back({&weights.final_norm, std::string(kFinalNormTensor), dim});
  weights.layers.resize(static_cast<size_t>(config.n_layers()));
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    add_layer_slots(weights.layers[i], config, i, slots);
  }
  return slots;
}

Result<ModelWeights> load_weights(std::shared_ptr<const Safetensors> checkpoint,
                                  const ModelConfig& config, WeightType type, int threads) {
  KVCAST_TRY(const auto reader, WeightReader::open(std::move(checkpoint), type, threads));
  ModelWeights weights;
  const WeightSlots slots = weight_slots(weights, config);
  for (const VectorSlot& slot : slots.vectors) {
    KVCAST_TRY(*slot.values, reader.vector(slot.name, slot.n));
  }
  for (const MatrixSlot& slot : slots.matrices) {
    KVCAST_TRY(*slot.matrix, reader.matrix(slot.part));
  }
  return weights;
}

PackedMatrix random_matrix(int64_t n, int64_t k, WeightType type, int threads, uint64_t seed) {
  // Not from the heap, which would keep it.
  const auto bytes = static_cast<size_t>(n * k) * sizeof(float);
  const std::shared_ptr<std::byte> memory = allocate_pages(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  const std::span source(reinterpret_cast<float*>(memory.get()), static_cast<size_t>(n * k));
  const float scale = 1.0F / std::sqrt(static_cast<float>(k));
  parallel_for(n, threads, [&](int64_t row, int) {
    uint64_t state = seed * 0x10001U + static_cast<uint64_t>(row) * 0x632be59bd9b4e019U;
    for (float& value : source.subspan(static_cast<size_t>(row * k), static_cast<size_t>(k))) {
      value = scale * (static_cast<float>(next_random(state) >> 40) * 0x1p-23F - 1.0F);
    }
  });
  return pack_or_throw(memory.get(), SourceType::kF32, n, k, type, threads);
}

ModelWeights random_weights(const ModelConfig& config, WeightType type, int threads,
                            uint64_t seed) {
  ModelWeights weights;
  const WeightSlots slots = weight_slots(weights, config);
  for (const VectorSlot& slot : slots.vectors)
    slot.values->assign(static_cast<size_t>(slot.n), 1.0F);
  for (const MatrixSlot& slot : slots.matrices) {
    *slot.matrix = random_matrix(slot.part.n, slot.part.k, type, threads, ++seed);
  }
  return weights;
}

std::vector<TensorToWrite> packed_tensors(ModelWeights& weights, const ModelConfig& config) {
  const WeightSlots slots = weight_slots(weights, config);
  std::vector<TensorToWrite> tensors;
  for (const MatrixSlot& slot : slots.matrices) {
    tensors.push_back(packed_tensor(slot.part.name, *slot.matrix));
  }
  // After the matrices, whose sizes are multiples of the alignment.
  for (const VectorSlot& slot : slots.vectors) {
    tensors.push_back(float_tensor(slot.name, *slot.values));
  }
  return tensors;
}

std::map<std::string, FloatTensor> unpack_weights(ModelWeights& weights, const ModelConfig& config,
                                                  int threads) {
  const WeightSlots slots = weight_slots(weights, config);
  std::map<std::string, FloatTensor> tensors;
  for (const VectorSlot& slot : slots.vectors) {
    tensors.emplace(slot.name, FloatTensor{{slot.n}, *slot.values});
  }
  for (const MatrixSlot& slot : slots.matrices) {
    const MatrixPart& part = slot.part;
    FloatTensor& tensor = tensors[part.stored];
    tensor.shape = {part.stored_rows, part.k};
    tensor.values.resize(static_cast<size_t>(part.stored_rows * part.k));
    const std::vector<float> rows = unpack(*slot.matrix, threads);
    std::ranges::copy(rows, tensor.values.begin() + part.first_row * part.k);
  }
  return tensors;
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

#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <new>
#include <span>

#include "base/macros.h"
#include "base/team.h"
#include "kernels/memory.h"
#include "model/adapted_layers.h"
#include "model/checkpoint.h"
#include "model/stored_rows.h"

namespace kvcast {
namespace {

/// SplitMix64 (Steele et al. 2014): enough for weights that only have to be finite and unequal.
uint64_t next_random(uint64_t& state) {
  uint64_t z = (state += 0x9e3779b97f4a7c15U);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

constexpr TensorName kPackedNames[] = {
    {Role::kEmbeddings, "transformer.token_embeddings.weight"},
    {Role::kLmHead, "lm_head.weight"},
    {Role::kFinalNorm, "transformer.norm.weight"},
    {Role::kAttentionNorm, "transformer.layers.{}.attn_norm.weight"},
    {Role::kQuery, "transformer.layers.{}.attn.q_proj.weight"},
    {Role::kKey, "transformer.layers.{}.attn.k_proj.weight"},
    {Role::kValue, "transformer.layers.{}.attn.v_proj.weight"},
    {Role::kQueryBias, "transformer.layers.{}.attn.q_proj.bias"},
    {Role::kKeyBias, "transformer.layers.{}.attn.k_proj.bias"},
    {Role::kValueBias, "transformer.layers.{}.attn.v_proj.bias"},
    {Role::kQueryNorm, "transformer.layers.{}.attn.q_norm.weight"},
    {Role::kKeyNorm, "transformer.layers.{}.attn.k_norm.weight"},
    {Role::kAttentionOutput, "transformer.layers.{}.attn.out_proj.weight"},
    {Role::kFeedForwardNorm, "transformer.layers.{}.ffn_norm.weight"},
    {Role::kGate, "transformer.layers.{}.ffn.proj_1.weight"},
    {Role::kUp, "transformer.layers.{}.ffn.proj_1.weight"},
    {Role::kDown, "transformer.layers.{}.ffn.proj_2.weight"},
};

/// Where the forward pass has each weight of a layer; of those that are stacked, the first.
struct LayerMatrix {
  Role role;
  PackedMatrix LayerWeights::*member;
};
constexpr LayerMatrix kLayerMatrices[] = {
    {Role::kQuery, &LayerWeights::q_proj}, {Role::kKey, &LayerWeights::k_proj},
    {Role::kValue, &LayerWeights::v_proj}, {Role::kAttentionOutput, &LayerWeights::out_proj},
    {Role::kGate, &LayerWeights::proj_1},  {Role::kDown, &LayerWeights::proj_2},
};
struct LayerVector {
  Role role;
  std::vector<float> LayerWeights::*member;
};
constexpr LayerVector kLayerVectors[] = {
    {Role::kAttentionNorm, &LayerWeights::attn_norm},
    {Role::kFeedForwardNorm, &LayerWeights::ffn_norm},
    {Role::kQueryNorm, &LayerWeights::q_norm},
    {Role::kKeyNorm, &LayerWeights::k_norm},
    {Role::kQueryBias, &LayerWeights::q_bias},
    {Role::kKeyBias, &LayerWeights::k_bias},
    {Role::kValueBias, &LayerWeights::v_bias},
};

PackedMatrix& matrix_of(ModelWeights& weights, const LayoutEntry& entry) {
  if (entry.role == Role::kEmbeddings) return weights.embeddings;
  if (entry.role == Role::kLmHead) return weights.lm_head;
  return weights.layers[entry.layer].*
         std::ranges::find(kLayerMatrices, entry.role, &LayerMatrix::role)->member;
}

const PackedMatrix& matrix_of(const LayerWeights& layer, Role role) {
  return layer.*std::ranges::find(kLayerMatrices, role, &LayerMatrix::role)->member;
}

std::vector<float>& vector_of(ModelWeights& weights, const LayoutEntry& entry) {
  if (entry.role == Role::kFinalNorm) return weights.final_norm;
  return weights.layers[entry.layer].*
         std::ranges::find(kLayerVectors, entry.role, &LayerVector::role)->member;
}

/// Of each slot's matrix. Queries, keys and values are products of one input; where their stored
/// types read it in different forms, all get the finest of them.
Result<std::vector<WeightType>> matrix_types(const WeightReader& reader,
                                             const std::vector<WeightSlot>& slots) {
  std::vector<WeightType> types(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].matrix == nullptr) continue;
    KVCAST_TRY(types[i], reader.type_of(slots[i].entry));
    if (slots[i].entry.role != Role::kValue) continue;
    WeightType &q = types[i - 2], &k = types[i - 1], &v = types[i];  // their order in a layout
    if (!read_same_activations(q, k) || !read_same_activations(q, v)) {
      q = k = v = finer(finer(q, k), v);
    }
  }
  return types;
}

/// Whether a weight is in the file of a model with these shared layers; none: all are.
bool is_stored(const LayoutEntry& entry, std::span<const int64_t> shared_layers) {
  if (shared_layers.empty()) return true;
  return entry.layer >= 0 && shared_layers[static_cast<size_t>(entry.layer)] == kOwnLayer;
}

/// A factor of an adapted matrix: [rows, columns] f32, of which one is the rank.
Result<std::vector<float>> read_factor(const TensorSource& file, const std::string& name,
                                       int64_t rows, int64_t columns) {
  const int64_t shape[] = {rows, columns};
  KVCAST_TRY(const TensorView tensor, file.find_float(name, shape));
  std::vector<float> values(static_cast<size_t>(rows * columns));
  to_float(tensor, values);
  return values;
}

/// `given` + up down, packed.
Result<PackedMatrix> adapted_matrix(const TensorSource& file, const LayoutEntry& entry,
                                    const PackedMatrix& given, std::optional<WeightType> type,
                                    int threads) {
  const int64_t n = entry.rows, k = entry.columns;
  KVCAST_TRY(const TensorView thin, file.find(entry.name + kDownSuffix));
  const int64_t rank = thin.shape.empty() ? 0 : thin.shape[0];
  KVCAST_TRY(const auto down, read_factor(file, entry.name + kDownSuffix, rank, k));
  KVCAST_TRY(const auto up, read_factor(file, entry.name + kUpSuffix, n, rank));
  std::vector<float> sum = unpack(given, threads);
  parallel_for(n, threads, [&](int64_t row, int) {
    float* const to = sum.data() + row * k;
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = up[static_cast<size_t>(row * rank + r)];
      const float* const from = down.data() + r * k;
      for (int64_t c = 0; c < k; ++c) to[c] += factor * from[c];
    }
  });
  const WeightType own =
      given.type() == WeightType::kInt4Blocks ? WeightType::kInt8Blocks : given.type();
  return pack_or_throw(reinterpret_cast<const std::byte*>(sum.data()), SourceType::kF32, n, k,
                       type.value_or(own), threads);
}

/// The matrices of adapted layers, whose slots are then filled: they are taken out of `slots`.
Status adapt_matrices(const TensorSource& file, const ModelWeights& from,
                      std::span<const int64_t> adapted, std::optional<WeightType> type, int threads,
                      std::vector<WeightSlot>& slots) {
  Status status;
  std::erase_if(slots, [&](const WeightSlot& slot) {
    if (!status || slot.matrix == nullptr || slot.entry.layer < 0) return false;
    const int64_t given = adapted[static_cast<size_t>(slot.entry.layer)];
    if (given == kOwnLayer) return false;
    auto matrix = adapted_matrix(
        file, slot.entry, matrix_of(from.layers[static_cast<size_t>(given)], slot.entry.role), type,
        threads);
    if (!matrix) {
      status = fail(matrix.error().message);
      return false;
    }
    *slot.matrix = std::move(*matrix);
    return true;
  });
  return status;
}

/// Fills some slots and takes them out.
using FillSlots = std::function<Status(std::vector<WeightSlot>&)>;

/// Reads what `weights` has no part of from elsewhere, and `fill` leaves.
Result<ModelWeights> load_stored(const Checkpoint& checkpoint, ModelWeights weights,
                                 std::span<const int64_t> shared_layers,
                                 std::optional<WeightType> type, int threads,
                                 const FillSlots& fill = {}) {
  KVCAST_TRY(const auto reader, WeightReader::open(checkpoint.weights, type, threads));
  auto slots = weight_slots(weights, checkpoint.config, checkpoint.form);
  std::erase_if(slots,
                [&](const WeightSlot& slot) { return !is_stored(slot.entry, shared_layers); });
  if (fill) KVCAST_CHECK(fill(slots));
  KVCAST_TRY(const auto types, matrix_types(reader, slots));
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].matrix != nullptr) {
      KVCAST_TRY(*slots[i].matrix, reader.matrix(slots[i].entry, types[i]));
    } else {
      KVCAST_TRY(*slots[i].vector, reader.floats(slots[i].entry));
    }
  }
  return weights;
}

/// The type of most elements.
WeightType most_of(const std::map<WeightType, int64_t>& elements) {
  return std::ranges::max_element(elements, {}, [](const auto& of) { return of.second; })->first;
}

bool is_bias(Role role) {
  return role == Role::kQueryBias || role == Role::kKeyBias || role == Role::kValueBias;
}

}  // namespace

const StoredForm kPackedForm = {.names = kPackedNames};

std::vector<WeightSlot> weight_slots(ModelWeights& weights, const ModelConfig& config,
                                     const StoredForm& stored) {
  weights.layers.resize(static_cast<size_t>(config.n_layers()));
  std::vector<WeightSlot> slots;
  for (LayoutEntry& entry : tensor_layout(config, kPackedForm, stored)) {
    PackedMatrix* const matrix = entry.is_matrix() ? &matrix_of(weights, entry) : nullptr;
    std::vector<float>* const vector = entry.is_matrix() ? nullptr : &vector_of(weights, entry);
    slots.push_back({matrix, vector, std::move(entry)});
  }
  return slots;
}

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, std::optional<WeightType> type,
                                  int threads) {
  return load_stored(checkpoint, {}, {}, type, threads);
}

namespace {

ModelWeights weights_shared(const SharedWeights& shared) {
  ModelWeights weights;
  weights.embeddings = shared.from.embeddings;
  weights.lm_head = shared.from.lm_head;
  weights.final_norm = shared.from.final_norm;
  for (const int64_t layer : shared.layers) {
    weights.layers.push_back(layer == kOwnLayer ? LayerWeights{}
                                                : shared.from.layers[static_cast<size_t>(layer)]);
  }
  return weights;
}

}  // namespace

Result<ModelWeights> load_weights(const Checkpoint& checkpoint, const SharedWeights& shared,
                                  std::optional<WeightType> type, int threads) {
  return load_stored(checkpoint, weights_shared(shared), shared.layers, type, threads);
}

Result<ModelWeights> load_adapted_weights(const Checkpoint& checkpoint, const SharedWeights& shared,
                                          std::span<const int64_t> adapted,
                                          std::optional<WeightType> type, int threads) {
  return load_stored(checkpoint, weights_shared(shared), shared.layers, type, threads,
                     [&](std::vector<WeightSlot>& slots) {
                       return adapt_matrices(*checkpoint.weights, shared.from, adapted, type,
                                             threads, slots);
                     });
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
  for (const auto& [matrix, vector, entry] : weight_slots(weights, config, kPackedForm)) {
    if (matrix != nullptr) {
      *matrix = random_matrix(entry.rows, entry.columns, type, threads, ++seed);
    } else {
      vector->assign(static_cast<size_t>(entry.rows), is_bias(entry.role) ? 0.0F : 1.0F);
    }
  }
  return weights;
}

std::vector<TensorToWrite> packed_tensors(ModelWeights& weights, const ModelConfig& config) {
  return packed_tensors(weights, config, {});
}

std::vector<TensorToWrite> packed_tensors(ModelWeights& weights, const ModelConfig& config,
                                          std::span<const int64_t> shared_layers) {
  std::vector<TensorToWrite> tensors, vectors;
  for (const auto& [matrix, vector, entry] : weight_slots(weights, config, kPackedForm)) {
    if (!is_stored(entry, shared_layers)) continue;
    if (matrix != nullptr) {
      tensors.push_back(packed_tensor(entry.name, *matrix));
    } else {
      vectors.push_back(float_tensor(entry.name, *vector));
    }
  }
  // After the matrices, whose sizes are multiples of the alignment.
  tensors.insert(tensors.end(), vectors.begin(), vectors.end());
  return tensors;
}

WeightType ModelWeights::main_type() const {
  std::map<WeightType, int64_t> elements;
  for (const LayerWeights& layer : layers) {
    for (const auto& [role, member] : kLayerMatrices) {
      elements[(layer.*member).type()] += (layer.*member).n() * (layer.*member).k();
    }
  }
  return most_of(elements);
}

Result<WeightType> main_type(const Checkpoint& checkpoint) {
  KVCAST_TRY(const auto reader, WeightReader::open(checkpoint.weights, std::nullopt, 1));
  ModelWeights nothing;
  const auto slots = weight_slots(nothing, checkpoint.config, checkpoint.form);
  KVCAST_TRY(const auto types, matrix_types(reader, slots));
  std::map<WeightType, int64_t> elements;
  for (size_t i = 0; i < slots.size(); ++i) {
    const LayoutEntry& entry = slots[i].entry;
    if (slots[i].matrix == nullptr || entry.layer < 0) continue;
    elements[types[i]] += entry.rows * entry.columns;
  }
  return most_of(elements);
}

int64_t ModelWeights::bytes() const {
  size_t total = embeddings.bytes() + lm_head.bytes() + final_norm.size() * sizeof(float);
  for (const LayerWeights& layer : layers) {
    for (const auto& [role, member] : kLayerMatrices) total += (layer.*member).bytes();
    for (const auto& [role, member] : kLayerVectors) {
      total += (layer.*member).size() * sizeof(float);
    }
  }
  return static_cast<int64_t>(total);
}

}  // namespace kvcast

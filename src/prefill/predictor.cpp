#include "prefill/predictor.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "base/macros.h"
#include "kernels/kernels.h"

namespace kvcast {
namespace {

/// Base layers per auxiliary layer, for the auxiliary layers up to the last one named.
std::vector<std::vector<int64_t>> invert(const std::vector<int64_t>& layer_map) {
  std::vector<std::vector<int64_t>> readers(
      static_cast<size_t>(*std::ranges::max_element(layer_map) + 1));
  for (size_t i = 0; i < layer_map.size(); ++i) {
    readers[layer_map[i]].push_back(static_cast<int64_t>(i));
  }
  return readers;
}

/// The maps of one kind (keys or values) of all base layers that read one auxiliary layer.
struct StackedMap {
  PackedMatrix weight;
  std::vector<float> bias;
};

Result<StackedMap> load_stacked(const Safetensors& file, std::string_view kind,
                                const std::vector<int64_t>& base_layers, const ModelConfig& base,
                                int64_t auxiliary_kv_width, WeightType type, int threads) {
  std::vector<TensorView> weights;
  StackedMap map;
  for (const int64_t i : base_layers) {
    const int64_t width = base.kv_width(i);
    const std::string name = fmt::format("{}_transforms.{}.", kind, i);
    KVCAST_TRY(auto weight,
               file.find_float(name + "weight", std::array{width, auxiliary_kv_width}));
    KVCAST_TRY(const auto bias, file.find_float(name + "bias", std::array{width}));
    weights.push_back(std::move(weight));
    map.bias.resize(map.bias.size() + static_cast<size_t>(width));
    to_float(bias, std::span(map.bias).last(static_cast<size_t>(width)));
  }
  map.weight = pack_stacked(weights, auxiliary_kv_width, type, threads);
  return map;
}

}  // namespace

Result<std::unique_ptr<Predictor>> Predictor::load(const std::filesystem::path& file,
                                                   const ModelConfig& base,
                                                   const ModelConfig& auxiliary,
                                                   const std::vector<int64_t>& layer_map,
                                                   WeightType type, int threads) {
  KVCAST_TRY(const auto tensors, Safetensors::open(file));
  auto predictor = std::make_unique<Predictor>();
  for (int64_t i = 0; i < base.n_layers(); ++i) {
    predictor->base_kv_widths_.push_back(base.kv_width(i));
  }
  int64_t j = 0;
  for (auto& base_layers : invert(layer_map)) {
    Source source;
    source.base_layers = std::move(base_layers);
    if (!source.base_layers.empty()) {
      const auto load_kind = [&](std::string_view kind) {
        return load_stacked(*tensors, kind, source.base_layers, base, auxiliary.kv_width(j), type,
                            threads);
      };
      KVCAST_TRY(StackedMap keys, load_kind("key"));
      KVCAST_TRY(StackedMap values, load_kind("value"));
      source.keys = std::move(keys.weight);
      source.key_bias = std::move(keys.bias);
      source.values = std::move(values.weight);
      source.value_bias = std::move(values.bias);
    }
    predictor->sources_.push_back(std::move(source));
    ++j;
  }
  return predictor;
}

std::unique_ptr<Predictor> Predictor::random(const ModelConfig& base, const ModelConfig& auxiliary,
                                             const std::vector<int64_t>& layer_map, WeightType type,
                                             int threads, uint64_t seed) {
  auto predictor = std::make_unique<Predictor>();
  for (int64_t i = 0; i < base.n_layers(); ++i) {
    predictor->base_kv_widths_.push_back(base.kv_width(i));
  }
  int64_t j = 0;
  for (auto& base_layers : invert(layer_map)) {
    Source source;
    source.base_layers = std::move(base_layers);
    int64_t width = 0;
    for (const int64_t i : source.base_layers) width += base.kv_width(i);
    if (width > 0) {
      source.keys = random_matrix(width, auxiliary.kv_width(j), type, threads, ++seed);
      source.values = random_matrix(width, auxiliary.kv_width(j), type, threads, ++seed);
      source.key_bias.assign(static_cast<size_t>(width), 0.0F);
      source.value_bias.assign(static_cast<size_t>(width), 0.0F);
    }
    predictor->sources_.push_back(std::move(source));
    ++j;
  }
  return predictor;
}

void Predictor::predict(const RawKeyValues& raw, std::span<const SequenceRows> sequences,
                        const Transformer& base, PredictorWorkspace& workspace) const {
  const Source& source = sources_[raw.layer];
  if (source.base_layers.empty()) return;
  workspace.positions.clear();
  for (const SequenceRows& sequence : sequences) {
    for (int64_t r = 0; r < sequence.rows; ++r) {
      workspace.positions.push_back(sequence.cache->next_position() + r);
    }
  }
  const auto rows = static_cast<int64_t>(workspace.positions.size());
  const int64_t width = source.keys.n(), auxiliary_width = source.keys.k();
  float* keys = workspace.keys.ensure(static_cast<size_t>(rows * width));
  float* values = workspace.values.ensure(static_cast<size_t>(rows * width));
  matmul({.a = raw.keys,
          .a_stride = auxiliary_width,
          .rows = rows,
          .weight = &source.keys,
          .bias = source.key_bias.data(),
          .out = keys,
          .out_stride = width},
         base.threads());
  matmul({.a = raw.values,
          .a_stride = auxiliary_width,
          .rows = rows,
          .weight = &source.values,
          .bias = source.value_bias.data(),
          .out = values,
          .out_stride = width},
         base.threads());

  int64_t column = 0;  // of the base layer's keys within the wide product
  for (const int64_t i : source.base_layers) {
    const ModelConfig& config = base.config();
    const auto& k_norm = base.weights().layers[i].k_norm;
    head_norm_rope({.x = keys + column,
                    .x_stride = width,
                    .rows = rows,
                    .heads = config.layers[i].kv_heads,
                    .head_dim = config.head_dim,
                    .norm_weight = k_norm.empty() ? nullptr : k_norm.data(),
                    .eps = config.norm_eps,
                    .positions = workspace.positions.data(),
                    .rope_cos = base.rope_cos(),
                    .rope_sin = base.rope_sin()},
                   base.threads());
    int64_t row = 0;
    for (const SequenceRows& sequence : sequences) {
      sequence.cache->append(i, keys + row * width + column, values + row * width + column,
                             sequence.rows, width);
      row += sequence.rows;
    }
    column += base_kv_widths_[i];
  }
}

int64_t Predictor::bytes() const {
  size_t total = 0;
  for (const Source& source : sources_) {
    total += source.keys.bytes() + source.values.bytes() +
             sizeof(float) * (source.key_bias.size() + source.value_bias.size());
  }
  return static_cast<int64_t>(total);
}

int64_t Predictor::parameter_count() const {
  int64_t total = 0;
  for (const Source& source : sources_) {
    total += 2 * (source.keys.n() * source.keys.k() + source.keys.n());
  }
  return total;
}

}  // namespace kvcast

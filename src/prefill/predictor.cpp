#include "prefill/predictor.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <string>

#include "base/macros.h"
#include "base/team.h"
#include "kernels/kernels.h"

namespace kvcast {
namespace {

/// Products of a block of rows: a quarter of a second-level cache of 1 MiB.
constexpr int64_t kBlockElements = 65'536;
/// Rows for which a product's weights are worth reading again.
constexpr int64_t kFewestBlockRows = 16;

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
  PackedMatrix weight;      // [sum of base kv_width, auxiliary kv_width]
  std::vector<float> bias;  // [sum of base kv_width]
};

std::string map_name(std::string_view kind, int64_t base_layer) {
  return fmt::format("{}_transforms.{}", kind, base_layer);
}
/// In packed files the maps that read one auxiliary layer are one.
std::string stacked_name(std::string_view kind, int64_t auxiliary_layer) {
  return fmt::format("{}_transforms.stacked.{}", kind, auxiliary_layer);
}

class PredictorReader {
 public:
  static Result<PredictorReader> open(const std::filesystem::path& path, const ModelConfig& base,
                                      WeightType type, int threads) {
    KVCAST_TRY(std::shared_ptr<const Safetensors> file, Safetensors::open(path));
    KVCAST_TRY(auto weights, WeightReader::open(std::move(file), type, threads));
    return PredictorReader(std::move(weights), base);
  }

  Result<StackedMap> map(std::string_view kind, const std::vector<int64_t>& base_layers,
                         int64_t auxiliary_layer, int64_t auxiliary_kv_width) const {
    const std::string stacked = stacked_name(kind, auxiliary_layer);
    LayoutEntry weight{.name = stacked + ".weight", .columns = auxiliary_kv_width, .parts = {}};
    LayoutEntry bias{.name = stacked + ".bias", .parts = {}};
    for (const int64_t i : base_layers) {
      const int64_t width = base_.kv_width(i);
      const std::string name = map_name(kind, i);
      weight.parts.push_back({name + ".weight", width, 0, width});
      bias.parts.push_back({name + ".bias", width, 0, width});
      weight.rows += width;
      bias.rows += width;
    }
    if (weights_.is_packed()) {
      weight = LayoutEntry::whole(weight.name, weight.rows, weight.columns);
      bias = LayoutEntry::whole(bias.name, bias.rows);
    }
    StackedMap map;
    KVCAST_TRY(map.weight, weights_.matrix(weight));
    KVCAST_TRY(map.bias, weights_.floats(bias));
    return map;
  }

 private:
  PredictorReader(WeightReader weights, const ModelConfig& base)
      : weights_(std::move(weights)), base_(base) {}

  WeightReader weights_;
  const ModelConfig& base_;
};

}  // namespace

Result<std::unique_ptr<Predictor>> Predictor::load(const std::filesystem::path& file,
                                                   const ModelConfig& base,
                                                   const ModelConfig& auxiliary,
                                                   const std::vector<int64_t>& layer_map,
                                                   WeightType type, int threads) {
  KVCAST_TRY(const auto reader, PredictorReader::open(file, base, type, threads));
  auto predictor = std::make_unique<Predictor>();
  for (int64_t i = 0; i < base.n_layers(); ++i) {
    predictor->base_kv_widths_.push_back(base.kv_width(i));
  }
  int64_t j = 0;
  for (auto& base_layers : invert(layer_map)) {
    Source source;
    source.base_layers = std::move(base_layers);
    if (!source.base_layers.empty()) {
      const int64_t width = auxiliary.kv_width(j);
      KVCAST_TRY(StackedMap keys, reader.map("key", source.base_layers, j, width));
      KVCAST_TRY(StackedMap values, reader.map("value", source.base_layers, j, width));
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

Forecast::Forecast(const Predictor& predictor, const Transformer& base,
                   std::span<const SequenceRows> sequences, PredictorWorkspace& workspace)
    : predictor_(predictor), base_(base), sequences_(sequences), workspace_(workspace) {
  workspace.positions.clear();
  for (const SequenceRows& sequence : sequences) {
    for (int64_t r = 0; r < sequence.rows; ++r) {
      workspace.positions.push_back(sequence.cache->next_position() + r);
    }
  }
  rows_ = static_cast<int64_t>(workspace.positions.size());
  const auto angles = static_cast<size_t>(rows_ * base.config().head_dim / 2);
  base.rope().fill(workspace.positions, workspace.rope_cos.ensure(angles),
                   workspace.rope_sin.ensure(angles));
}

void Forecast::add(const RawKeyValues& raw) {
  const Predictor::Source& source = predictor_.sources_[raw.layer];
  if (source.base_layers.empty()) return;
  const int64_t width = source.keys.n(), threads = base_.threads();
  const int64_t most = std::max(kBlockElements / width, kFewestBlockRows);
  int64_t blocks = std::max((rows_ + most - 1) / most,
                            std::min(threads, std::max(rows_ / kFewestBlockRows, int64_t{1})));
  if (blocks > threads) blocks = (blocks + threads - 1) / threads * threads;
  const int64_t block_floats = (rows_ / blocks + 1) * width;
  float* const scratch = workspace_.blocks.ensure(static_cast<size_t>(threads * block_floats));
  std::atomic<bool> out_of_memory{false};
  parallel_for(blocks, base_.threads(), [&](int64_t block, int worker) {
    try {
      forecast_block(source, raw, rows_ * block / blocks, rows_ * (block + 1) / blocks,
                     scratch + worker * block_floats);
    } catch (const std::bad_alloc&) {  // of a product's own scratch
      out_of_memory.store(true, std::memory_order_relaxed);
    }
  });
  if (out_of_memory.load(std::memory_order_relaxed)) throw std::bad_alloc();
  for (const int64_t i : source.base_layers) {
    for (const SequenceRows& sequence : sequences_) sequence.cache->commit(i, sequence.rows);
  }
}

/// Rows [begin, end) of all base layers that read the source. The wide product has little depth:
/// what it writes is normed, rotated and put into the caches while it is in this thread's cache.
void Forecast::forecast_block(const Predictor::Source& source, const RawKeyValues& raw,
                              int64_t begin, int64_t end, float* scratch) const {
  const ModelConfig& config = base_.config();
  const int64_t width = source.keys.n(), auxiliary_width = source.keys.k();
  const auto multiply = [&](const float* a, const PackedMatrix& weight, const float* bias) {
    matmul({.a = a + begin * auxiliary_width,
            .a_stride = auxiliary_width,
            .rows = end - begin,
            .weight = &weight,
            .bias = bias,
            .out = scratch,
            .out_stride = width},
           1);
  };
  const auto append = [&](auto&& place) {  // place(layer, cache, row, row of the sequence, args)
    int64_t column = 0;                    // of the base layer within the wide product
    for (const int64_t i : source.base_layers) {
      int64_t first = 0;  // row of the sequence among all
      for (const SequenceRows& sequence : sequences_) {
        const int64_t from = std::max(begin, first);
        const int64_t to = std::min(end, first + sequence.rows);
        if (from < to) {
          HeadNormRopeArgs args{.x = scratch + (from - begin) * width + column,
                                .x_stride = width,
                                .rows = to - from,
                                .heads = config.layers[i].kv_heads,
                                .head_dim = config.head_dim};
          place(i, *sequence.cache, from, from - first, args);
          head_norm_rope(args, 1);
        }
        first += sequence.rows;
      }
      column += predictor_.base_kv_widths_[i];
    }
  };
  multiply(raw.keys, source.keys, source.key_bias.data());
  append([&](int64_t layer, KVCache& cache, int64_t row, int64_t offset, HeadNormRopeArgs& args) {
    const std::vector<float>& k_norm = base_.weights().layers[layer].k_norm;
    args.norm_weight = k_norm.empty() ? nullptr : k_norm.data();
    args.eps = config.norm_eps;
    args.rope_cos = workspace_.rope_cos.data() + row * config.head_dim / 2;
    args.rope_sin = workspace_.rope_sin.data() + row * config.head_dim / 2;
    cache.place_keys(layer, offset, args);
  });
  multiply(raw.values, source.values, source.value_bias.data());
  append([&](int64_t layer, KVCache& cache, int64_t, int64_t offset, HeadNormRopeArgs& args) {
    cache.place_values(layer, offset, args);
  });
}

std::vector<TensorToWrite> Predictor::packed_tensors() const {
  std::vector<TensorToWrite> matrices, biases;
  for (size_t j = 0; j < sources_.size(); ++j) {
    const Source& source = sources_[j];
    if (source.base_layers.empty()) continue;
    const std::string keys = stacked_name("key", static_cast<int64_t>(j));
    const std::string values = stacked_name("value", static_cast<int64_t>(j));
    matrices.push_back(packed_tensor(keys + ".weight", source.keys));
    matrices.push_back(packed_tensor(values + ".weight", source.values));
    biases.push_back(float_tensor(keys + ".bias", source.key_bias));
    biases.push_back(float_tensor(values + ".bias", source.value_bias));
  }
  matrices.insert(matrices.end(), biases.begin(), biases.end());
  return matrices;
}

std::map<std::string, FloatTensor> Predictor::unpacked(int threads) const {
  std::map<std::string, FloatTensor> tensors;
  const auto add = [&](std::string_view kind, const Source& source, const PackedMatrix& stacked,
                       const std::vector<float>& stacked_bias) {
    const std::vector<float> rows = unpack(stacked, threads);
    auto row = rows.begin();
    auto bias = stacked_bias.begin();
    for (const int64_t i : source.base_layers) {
      const int64_t width = base_kv_widths_[i];
      tensors[map_name(kind, i) + ".weight"] = {{width, stacked.k()},
                                                {row, row + width * stacked.k()}};
      tensors[map_name(kind, i) + ".bias"] = {{width}, {bias, bias + width}};
      row += width * stacked.k();
      bias += width;
    }
  };
  for (const Source& source : sources_) {
    if (source.base_layers.empty()) continue;
    add("key", source, source.keys, source.key_bias);
    add("value", source, source.values, source.value_bias);
  }
  return tensors;
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

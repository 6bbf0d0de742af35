#include "prefill/predictor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
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

/// The maps of one kind (keys or values) of all base layers that read one input.
struct StackedMap {
  PackedMatrix weight;      // [sum of base kv_width, input width]
  std::vector<float> bias;  // [sum of base kv_width]
};

std::string map_name(std::string_view kind, int64_t base_layer) {
  return fmt::format("{}_transforms.{}", kind, base_layer);
}
/// In packed files the maps that read one input are one.
std::string stacked_name(std::string_view kind, const ForecastInput& input) {
  if (input == ForecastInput{.layer = input.layer}) {  // as format 1 has it
    return fmt::format("{}_transforms.stacked.{}", kind, input.layer);
  }
  std::string name = fmt::format("{}_transforms.stacked.{}.{}.", kind,
                                 prompt_reader_name(input.reader), input_kind_name(input.kind));
  for (const int64_t layer : input.earlier) name += fmt::format("{}-", layer);
  return name + std::to_string(input.layer);
}

class PredictorReader {
 public:
  static Result<PredictorReader> open(const std::filesystem::path& path, const ModelConfig& base,
                                      std::optional<WeightType> type, int threads) {
    KVCAST_TRY(std::shared_ptr<const Safetensors> file, Safetensors::open(path));
    KVCAST_TRY(auto weights, WeightReader::open(std::move(file), type, threads));
    return PredictorReader(std::move(weights), base);
  }

  Result<StackedMap> map(std::string_view kind, const std::vector<int64_t>& base_layers,
                         const ForecastInput& input, int64_t width_of_input) const {
    const std::string stacked = stacked_name(kind, input);
    LayoutEntry weight{.name = stacked + ".weight", .columns = width_of_input, .parts = {}};
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

std::unique_ptr<Predictor> Predictor::without_maps(const ModelConfig& base,
                                                   const ModelConfig& auxiliary,
                                                   const ForecastPlan& plan) {
  auto predictor = std::make_unique<Predictor>();
  for (int64_t i = 0; i < base.n_layers(); ++i) {
    predictor->base_kv_widths_.push_back(base.kv_width(i));
    if (i < plan.exact_layers) continue;
    auto& sources = predictor->sources_;
    auto source = std::ranges::find(sources, plan.inputs[i], &Source::input);
    if (source == sources.end()) {
      source = sources.insert(source, Source());
      source->input = plan.inputs[i];
      const bool of_base = source->input.reader == PromptReader::kBase;
      if (source->input.kind == InputKind::kResidual) {
        const ModelConfig& reader = of_base ? base : auxiliary;
        source->norm_eps = reader.norm_eps;
        source->unit_norm.assign(static_cast<size_t>(reader.model_dim), 1.0F);
      }
    }
    source->base_layers.push_back(i);
  }
  for (const Source& source : predictor->sources_) {
    for (const int64_t layer : source.input.earlier) {
      const Stream stream{source.input.reader, layer, std::ssize(source.unit_norm)};
      if (std::ranges::find(predictor->kept_, stream) != predictor->kept_.end()) continue;
      predictor->kept_.push_back(stream);
    }
  }
  return predictor;
}

Result<std::unique_ptr<Predictor>> Predictor::load(const std::filesystem::path& file,
                                                   const ModelConfig& base,
                                                   const ModelConfig& auxiliary,
                                                   const ForecastPlan& plan,
                                                   std::optional<WeightType> type, int threads) {
  KVCAST_TRY(const auto reader, PredictorReader::open(file, base, type, threads));
  auto predictor = without_maps(base, auxiliary, plan);
  for (Source& source : predictor->sources_) {
    const int64_t width = input_width(source.input, base, auxiliary);
    KVCAST_TRY(StackedMap keys, reader.map("key", source.base_layers, source.input, width));
    KVCAST_TRY(StackedMap values, reader.map("value", source.base_layers, source.input, width));
    source.keys = std::move(keys.weight);
    source.key_bias = std::move(keys.bias);
    source.values = std::move(values.weight);
    source.value_bias = std::move(values.bias);
  }
  return predictor;
}

std::unique_ptr<Predictor> Predictor::random(const ModelConfig& base, const ModelConfig& auxiliary,
                                             const ForecastPlan& plan, WeightType type, int threads,
                                             uint64_t seed) {
  auto predictor = without_maps(base, auxiliary, plan);
  for (Source& source : predictor->sources_) {
    int64_t width = 0;
    for (const int64_t i : source.base_layers) width += base.kv_width(i);
    const int64_t columns = input_width(source.input, base, auxiliary);
    source.keys = random_matrix(width, columns, type, threads, ++seed);
    source.values = random_matrix(width, columns, type, threads, ++seed);
    source.key_bias.assign(static_cast<size_t>(width), 0.0F);
    source.value_bias.assign(static_cast<size_t>(width), 0.0F);
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
  int64_t kept = 0;
  for (const Predictor::Stream& stream : predictor.kept_) kept += rows_ * stream.width;
  workspace.streams.ensure(static_cast<size_t>(kept));
}

float* Forecast::kept_stream(PromptReader reader, int64_t layer) const {
  float* rows = workspace_.streams.data();
  for (const Predictor::Stream& stream : predictor_.kept_) {
    if (stream.reader == reader && stream.layer == layer) return rows;
    rows += rows_ * stream.width;
  }
  assert(false);  // the predictor names all that its inputs need
  return nullptr;
}

void Forecast::add(PromptReader reader, const RawKeyValues& raw) {
  for (const Predictor::Stream& stream : predictor_.kept_) {
    if (stream.reader != reader || stream.layer != raw.layer) continue;
    std::copy_n(raw.residual, rows_ * stream.width, kept_stream(reader, raw.layer));
  }
  for (const Predictor::Source& source : predictor_.sources_) {
    if (source.input.reader == reader && source.input.layer == raw.layer) add_source(source, raw);
  }
}

void Forecast::add_source(const Predictor::Source& source, const RawKeyValues& raw) {
  const int64_t width = source.keys.n(), threads = base_.threads();
  const int64_t most = std::max(kBlockElements / width, kFewestBlockRows);
  int64_t blocks = std::max((rows_ + most - 1) / most,
                            std::min(threads, std::max(rows_ / kFewestBlockRows, int64_t{1})));
  if (blocks > threads) blocks = (blocks + threads - 1) / threads * threads;
  const bool as_it_is = source.input.kind == InputKind::kKeyValue;
  const int64_t block_floats = (rows_ / blocks + 1) * (width + (as_it_is ? 0 : source.keys.k()));
  float* const scratch = workspace_.blocks.ensure(static_cast<size_t>(threads * block_floats));
  parallel_for(blocks, base_.threads(), [&](int64_t block, int worker) {
    forecast_block(source, raw, rows_ * block / blocks, rows_ * (block + 1) / blocks,
                   scratch + worker * block_floats);
  });
  for (const int64_t i : source.base_layers) {
    for (const SequenceRows& sequence : sequences_) sequence.cache->commit(i, sequence.rows);
  }
}

Forecast::BlockInput Forecast::block_input(const Predictor::Source& source, const RawKeyValues& raw,
                                           int64_t begin, int64_t end, float* scratch) const {
  const ForecastInput& input = source.input;
  const int64_t width = source.keys.k();
  if (input.kind == InputKind::kKeyValue) {
    return {raw.keys + begin * width, raw.values + begin * width};
  }
  if (input.kind == InputKind::kResidual) {
    const int64_t dim = std::ssize(source.unit_norm);
    float* out = scratch;
    const auto normed = [&](const float* stream) {
      rms_norm({.x = stream + begin * dim,
                .x_stride = dim,
                .weight = source.unit_norm.data(),
                .out = out,
                .out_stride = width,
                .rows = end - begin,
                .dim = dim,
                .eps = source.norm_eps},
               1);
      out += dim;
    };
    for (const int64_t layer : input.earlier) normed(kept_stream(input.reader, layer));
    normed(raw.residual);
    return {scratch, scratch};
  }
  const int64_t half = width / 2;
  for (int64_t r = begin; r < end; ++r) {
    float* const row = scratch + (r - begin) * width;
    std::copy_n(raw.values + r * half, half, std::copy_n(raw.keys + r * half, half, row));
  }
  return {scratch, scratch};
}

/// Rows [begin, end) of all base layers that read the source. The wide product has little depth:
/// what it writes is normed, rotated and put into the caches while it is in this thread's cache.
void Forecast::forecast_block(const Predictor::Source& source, const RawKeyValues& raw,
                              int64_t begin, int64_t end, float* scratch) const {
  const ModelConfig& config = base_.config();
  const int64_t width = source.keys.n(), width_of_input = source.keys.k();
  const BlockInput input = block_input(source, raw, begin, end, scratch + (end - begin) * width);
  const auto multiply = [&](const float* a, const PackedMatrix& weight, const float* bias) {
    matmul({.a = a,
            .a_stride = width_of_input,
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
  multiply(input.keys, source.keys, source.key_bias.data());
  append([&](int64_t layer, KVCache& cache, int64_t row, int64_t offset, HeadNormRopeArgs& args) {
    const std::vector<float>& k_norm = base_.weights().layers[layer].k_norm;
    args.norm_weight = k_norm.empty() ? nullptr : k_norm.data();
    args.eps = config.norm_eps;
    args.rope_cos = workspace_.rope_cos.data() + row * config.head_dim / 2;
    args.rope_sin = workspace_.rope_sin.data() + row * config.head_dim / 2;
    cache.place_keys(layer, offset, args);
  });
  multiply(input.values, source.values, source.value_bias.data());
  append([&](int64_t layer, KVCache& cache, int64_t, int64_t offset, HeadNormRopeArgs& args) {
    cache.place_values(layer, offset, args);
  });
}

std::vector<TensorToWrite> Predictor::packed_tensors() const {
  std::vector<TensorToWrite> matrices, biases;
  for (const Source& source : sources_) {
    const std::string keys = stacked_name("key", source.input);
    const std::string values = stacked_name("value", source.input);
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

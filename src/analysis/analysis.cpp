#include "analysis/analysis.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <optional>

#include "analysis/statistics.h"
#include "model/kv_cache_rows.h"

namespace kvcast::analysis {
namespace {

/// What densities show on either side of zero, in standard deviations of the first batch.
constexpr double kDensityDeviations = 4;

/// Sums over the differences of one layer's keys or values.
struct ErrorSums {
  RunningMoments windows;           // each window's mean |difference|
  RunningMoments differences;       // all of them
  double absolute = 0;              // sum of |exact|
  std::vector<double> by_position;  // [window_tokens] sums of |difference|
  Density density;                  // no bins: not wanted in this layer

  /// predicted, exact [kv_heads, tokens, head_dim]
  void add(std::span<const float> predicted, std::span<const float> exact, int64_t head_dim) {
    const auto tokens = by_position.size();
    RunningMoments window;
    double sum = 0;
    for (size_t row = 0; row * head_dim < exact.size(); ++row) {
      double row_sum = 0;
      for (size_t i = row * head_dim; i < (row + 1) * head_dim; ++i) {
        const double difference = double{predicted[i]} - double{exact[i]};
        window.add(difference);
        row_sum += std::abs(difference);
        absolute += std::abs(double{exact[i]});
      }
      by_position[row % tokens] += row_sum;
      sum += row_sum;
    }
    windows.add(sum / static_cast<double>(exact.size()));
    differences.add(window);
  }

  void count(std::span<const float> predicted, std::span<const float> exact) {
    if (density.counts.empty()) return;
    if (density.high == density.low) {
      const double reach = kDensityDeviations * differences.standard_deviation();
      density.high = reach > 0 ? reach : 1;
      density.low = -density.high;
    }
    const auto bins = static_cast<double>(density.counts.size());
    const double scale = bins / (density.high - density.low);
    for (size_t i = 0; i < exact.size(); ++i) {
      const double bin =
          std::floor((double{predicted[i]} - double{exact[i]} - density.low) * scale);
      if (bin < 0) {
        ++density.below;
      } else if (bin >= bins) {
        ++density.above;
      } else {
        ++density.counts[static_cast<size_t>(bin)];
      }
    }
  }

  [[nodiscard]] CacheErrors result(const std::vector<int64_t>& edges) const {
    CacheErrors errors;
    errors.l1 = estimate_of(windows);
    const auto n = static_cast<double>(differences.count());
    errors.relative_l1 = absolute > 0 ? errors.l1.value * n / absolute : 0;
    errors.mean = differences.mean();
    errors.standard_deviation = differences.standard_deviation();
    errors.density = density;
    const double values_per_position = n / static_cast<double>(by_position.size());
    for (size_t bin = 0; bin + 1 < edges.size(); ++bin) {
      double sum = 0;
      for (int64_t p = edges[bin]; p < edges[bin + 1]; ++p) sum += by_position[p];
      errors.l1_by_position.push_back(
          sum / (values_per_position * static_cast<double>(edges[bin + 1] - edges[bin])));
    }
    return errors;
  }
};

/// 1 where both are zero: they agree.
double cosine(const float* a, const float* b, int64_t count) {
  double dot = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < count; ++i) {
    dot += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  if (aa == 0 || bb == 0) return aa == bb ? 1 : 0;
  return dot / std::sqrt(aa * bb);
}

std::vector<int64_t> bin_edges(int64_t positions, int64_t bins) {
  bins = std::min(bins, positions);
  std::vector<int64_t> edges;
  for (int64_t bin = 0; bin <= bins; ++bin) edges.push_back(bin * positions / bins);
  return edges;
}

}  // namespace

struct CacheAnalyzer::Sums {
  ErrorSums keys, values;
  /// Each window's mean cosine with predicted keys and values, keys only, values only.
  std::array<RunningMoments, 3> cosine;
  std::vector<RunningMoments> cosine_by_position;  // [window_tokens]
};

struct CacheAnalyzer::Batch {
  std::vector<KVCache> exact, predicted, auxiliary;  // [windows]
  Workspace base, reader;
  PredictorWorkspace predictor;
  AlignedBuffer<float> attention;  // [tokens of all windows, query_width]
  size_t windows = 0;

  /// Empty caches with room, for a batch of `count` windows.
  void prepare(const Models& models, size_t count, int64_t tokens) {
    windows = count;
    while (exact.size() < count) {
      exact.emplace_back(models.base->config());
      predicted.emplace_back(models.base->config());
      auxiliary.emplace_back(models.shapes().auxiliary);
    }
    for (auto* caches : {&exact, &predicted, &auxiliary}) {
      for (KVCache& cache : *caches) {
        cache.truncate(0);
        cache.reserve(tokens);
      }
    }
  }

  [[nodiscard]] std::vector<SequenceRows> rows(std::vector<KVCache>& caches, int64_t tokens) const {
    std::vector<SequenceRows> sequences;
    for (size_t w = 0; w < windows; ++w) sequences.push_back({&caches[w], tokens});
    return sequences;
  }
};

CacheAnalyzer::CacheAnalyzer(const Models& models, const AnalyzerOptions& options)
    : models_(models), options_(options), batch_(std::make_unique<Batch>()) {
  const int64_t n_layers = models.base->config().n_layers();
  sums_.resize(static_cast<size_t>(n_layers));
  for (Sums& sums : sums_) {
    for (ErrorSums* errors : {&sums.keys, &sums.values}) {
      errors->by_position.resize(static_cast<size_t>(options.window_tokens));
    }
    sums.cosine_by_position.resize(static_cast<size_t>(options.window_tokens));
  }
  for (const int64_t layer : density_layers(n_layers)) {
    sums_[layer].keys.density.counts.resize(static_cast<size_t>(options.density_bins));
    sums_[layer].values.density.counts.resize(static_cast<size_t>(options.density_bins));
  }
}

CacheAnalyzer::~CacheAnalyzer() = default;
CacheAnalyzer::CacheAnalyzer(CacheAnalyzer&&) noexcept = default;

bool CacheAnalyzer::add(std::span<const std::vector<int32_t>> windows,
                        const std::stop_token& stop) {
  if (windows.empty()) return true;
  batch_->prepare(models_, windows.size(), options_.window_tokens);
  if (!predict(windows, stop)) return false;

  const Transformer& base = *models_.base;
  const int64_t dim = base.config().model_dim, tokens = options_.window_tokens;
  float* rows = batch_->base.rows.ensure(windows.size() * static_cast<size_t>(tokens * dim));
  for (size_t w = 0; w < windows.size(); ++w) {
    base.embed(windows[w], rows + static_cast<int64_t>(w) * tokens * dim);
  }
  RunLayersOptions options;
  options.last = base.config().n_layers();
  options.on_attention = [this](const LayerAttention& attention) { compare(attention); };
  base.run_layers(rows, batch_->rows(batch_->exact, tokens), options, batch_->base);
  return true;
}

/// What reads the prompt reads the windows, and the predictor fills the predicted caches; the
/// plan's sink tokens are the base's own.
bool CacheAnalyzer::predict(std::span<const std::vector<int32_t>> windows,
                            const std::stop_token& stop) {
  const ForecastPlan& plan = models_.plan;
  const int64_t tokens = options_.window_tokens, sinks = std::min(plan.sink_tokens, tokens);
  Batch& batch = *batch_;
  std::optional<Forecast> forecast;
  const auto read = [&](const Transformer& model, std::vector<KVCache>& caches, int64_t layers,
                        int64_t begin, int64_t end, PromptReader reader) {
    const int64_t dim = model.config().model_dim, count = end - begin;
    if (count == 0 || layers == 0) return true;
    float* rows = batch.reader.rows.ensure(windows.size() * static_cast<size_t>(count * dim));
    for (size_t w = 0; w < windows.size(); ++w) {
      model.embed(std::span(windows[w]).subspan(begin, count),
                  rows + static_cast<int64_t>(w) * count * dim);
    }
    RunLayersOptions options;
    options.last = layers;
    options.output = LastLayerOutput::kNothing;
    options.stop = stop;
    if (forecast) {
      options.on_raw_key_values = [&](const RawKeyValues& raw) { forecast->add(reader, raw); };
    }
    return model.run_layers(rows, batch.rows(caches, count), options, batch.reader);
  };
  const auto read_both = [&](int64_t begin, int64_t end, int64_t base_layers) {
    return (!models_.auxiliary || read(*models_.auxiliary, batch.auxiliary, plan.auxiliary_layers(),
                                       begin, end, PromptReader::kAuxiliary)) &&
           read(*models_.base, batch.predicted, base_layers, begin, end, PromptReader::kBase);
  };
  if (!read_both(0, sinks, plan.base_layers())) return false;
  for (size_t w = 0; w < batch.windows; ++w) {
    batch.predicted[w].advance(sinks);
    batch.auxiliary[w].advance(sinks);
  }
  const auto predicted = batch.rows(batch.predicted, tokens - sinks);
  forecast.emplace(*models_.predictor, *models_.base, predicted, batch.predictor);
  return read_both(sinks, tokens, plan.exact_layers);
}

/// The exact run has come through a layer's attention.
void CacheAnalyzer::compare(const LayerAttention& attention) {
  const ModelConfig& config = models_.base->config();
  const int64_t layer = attention.layer;
  Sums& sums = sums_[layer];
  Batch& batch = *batch_;
  for (size_t w = 0; w < batch.windows; ++w) {
    const KVCache &exact = batch.exact[w], &predicted = batch.predicted[w];
    const auto exact_keys = keys_without_rope(exact, layer, *models_.base);
    const auto predicted_keys = keys_without_rope(predicted, layer, *models_.base);
    sums.keys.add(predicted_keys, exact_keys, config.head_dim);
    sums.keys.count(predicted_keys, exact_keys);
    const auto exact_values = cached_values(exact, layer);
    const auto predicted_values = cached_values(predicted, layer);
    sums.values.add(predicted_values, exact_values, config.head_dim);
    sums.values.count(predicted_values, exact_values);
  }
  compare_attention(attention);
}

/// The layer's attention once more, over predicted keys, values or both.
void CacheAnalyzer::compare_attention(const LayerAttention& attention) {
  const ModelConfig& config = models_.base->config();
  const int64_t layer = attention.layer, tokens = options_.window_tokens;
  const int64_t width = config.query_width(layer);
  Sums& sums = sums_[layer];
  Batch& batch = *batch_;
  float* out = batch.attention.ensure(batch.windows * static_cast<size_t>(tokens * width));
  for (const auto& [variant, keys, values] : {std::tuple{0, &batch.predicted, &batch.predicted},
                                              std::tuple{1, &batch.predicted, &batch.exact},
                                              std::tuple{2, &batch.exact, &batch.predicted}}) {
    std::vector<AttentionArgs> args;
    for (size_t w = 0; w < batch.windows; ++w) {
      const int64_t offset = static_cast<int64_t>(w) * tokens * width;
      assert((*keys)[w].head_stride() == (*values)[w].head_stride());
      args.push_back({.q = attention.queries + offset,
                      .q_stride = width,
                      .rows = tokens,
                      .keys = (*keys)[w].keys(layer),
                      .values = (*values)[w].values(layer),
                      .head_stride = (*keys)[w].head_stride(),
                      .out = out + offset,
                      .out_stride = width});
    }
    const LayerConfig& shape = config.layers[layer];
    kvcast::attention(args, {shape.query_heads, shape.kv_heads, config.head_dim},
                      models_.base->threads());
    for (size_t w = 0; w < batch.windows; ++w) {
      RunningMoments window;
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t offset = (static_cast<int64_t>(w) * tokens + t) * width;
        const double similarity = cosine(attention.outputs + offset, out + offset, width);
        window.add(similarity);
        if (variant == 0) sums.cosine_by_position[t].add(similarity);
      }
      sums.cosine[variant].add(window.mean());
    }
  }
}

Analysis CacheAnalyzer::result() const {
  Analysis analysis;
  analysis.window_tokens = options_.window_tokens;
  analysis.position_edges = bin_edges(options_.window_tokens, options_.position_bins);
  analysis.density_layers = density_layers(static_cast<int64_t>(sums_.size()));
  analysis.windows = sums_.empty() ? 0 : sums_.front().keys.windows.count();
  const auto& edges = analysis.position_edges;
  for (const Sums& sums : sums_) {
    LayerAnalysis layer{.keys = sums.keys.result(edges),
                        .values = sums.values.result(edges),
                        .attention_cosine = estimate_of(sums.cosine[0]),
                        .attention_cosine_keys = estimate_of(sums.cosine[1]),
                        .attention_cosine_values = estimate_of(sums.cosine[2]),
                        .attention_cosine_by_position = {}};
    for (size_t bin = 0; bin + 1 < edges.size(); ++bin) {
      RunningMoments positions;
      for (int64_t p = edges[bin]; p < edges[bin + 1]; ++p) {
        positions.add(sums.cosine_by_position[p]);
      }
      layer.attention_cosine_by_position.push_back(positions.mean());
    }
    analysis.layers.push_back(std::move(layer));
  }
  return analysis;
}

std::vector<int64_t> density_layers(int64_t n_layers) {
  std::vector<int64_t> layers;
  for (int64_t layer = 3; layer < n_layers; layer += 4) layers.push_back(layer);
  if (layers.empty() && n_layers > 0) layers.push_back(n_layers - 1);
  return layers;
}

double depth_trend(const std::vector<double>& by_layer) {
  const size_t quarter = std::max<size_t>(by_layer.size() / 4, 1);
  if (by_layer.empty()) return NAN;
  double first = 0, last = 0;
  for (size_t i = 0; i < quarter; ++i) {
    first += by_layer[i];
    last += by_layer[by_layer.size() - 1 - i];
  }
  return first == 0 ? NAN : last / first;
}

}  // namespace kvcast::analysis

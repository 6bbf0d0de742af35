#include "fit/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/macros.h"
#include "io/safetensors.h"
#include "model/kv_cache.h"

namespace kvcast {
namespace {

constexpr const char* kFingerprint = "fit";
constexpr const char* kWindows = "windows";

/// Calls visit(name, dtype, bytes) for every array of the sums.
template <typename Sums, typename Visitor>
void for_each_array(Sums& statistics, Visitor visit) {
  const auto visit_set = [&](std::string_view set, auto& blocks) {
    for (size_t b = 0; b < blocks.size(); ++b) {
      auto& m = blocks[b];
      const auto name = [&](std::string_view what) {
        return fmt::format("{}.{}.{}", set, b, what);
      };
      visit(name("rows"), DType::kI64, std::span(&m.rows, 1));
      visit(name("x_mean"), DType::kF64, std::span(m.x_mean));
      visit(name("y_mean"), DType::kF64, std::span(m.y_mean));
      visit(name("yy"), DType::kF64, std::span(m.yy));
      visit(name("xx"), DType::kF32, std::span(m.xx));
      visit(name("yx"), DType::kF32, std::span(m.yx));
    }
  };
  visit_set("fitted", statistics.fitted);
  visit_set("held_out", statistics.held_out);
}

/// The residual stream over its RMS: what a layer's own projections see, but for their weights.
void normalise(const float* row, int64_t dim, float eps, float* out) {
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) squares += double{row[i]} * row[i];
  const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) out[i] = static_cast<float>(row[i] * scale);
}

}  // namespace

FitShape FitShape::of(const ModelConfig& auxiliary, std::span<const InputKind> kinds,
                      int64_t sink_tokens, int64_t exact_layers) {
  FitShape shape{.sink_tokens = sink_tokens, .exact_layers = exact_layers, .blocks = {}};
  std::vector<ForecastInput> inputs;
  for (int64_t j = 0; j < auxiliary.n_layers(); ++j) inputs.push_back({.layer = j});
  if (exact_layers > 0)
    inputs.push_back({.reader = PromptReader::kBase, .layer = exact_layers - 1});
  for (ForecastInput input : inputs) {
    for (const InputKind kind : kinds) {
      input.kind = kind;
      if (kind == InputKind::kKeyValue) {
        shape.blocks.push_back({.input = input, .values = false});
        shape.blocks.push_back({.input = input, .keys = false});
      } else {
        shape.blocks.push_back({.input = input});
      }
    }
  }
  return shape;
}

int64_t FitShape::targets(const FitBlock& block, const ModelConfig& base) const {
  int64_t width = 0;
  for (int64_t i = exact_layers; i < base.n_layers(); ++i) width += base.kv_width(i);
  return width * block.parts();
}

Statistics Statistics::empty(const FitShape& shape, const ModelConfig& base,
                             const ModelConfig& auxiliary, std::string fingerprint) {
  Statistics statistics;
  statistics.fingerprint = std::move(fingerprint);
  for (const FitBlock& block : shape.blocks) {
    statistics.fitted.emplace_back(input_width(block.input, base, auxiliary),
                                   shape.targets(block, base));
  }
  statistics.held_out = statistics.fitted;
  return statistics;
}

Status Statistics::save(const std::filesystem::path& file) const {
  std::vector<TensorToWrite> tensors;
  for_each_array(*this, [&](std::string name, DType dtype, auto values) {
    tensors.push_back({std::move(name), dtype, {std::ssize(values)}, std::as_bytes(values)});
  });
  return write_safetensors(file, tensors,
                           {{kFingerprint, fingerprint}, {kWindows, std::to_string(windows)}});
}

Result<Statistics> Statistics::load(const std::filesystem::path& file, Statistics empty) {
  KVCAST_TRY(const auto stored, Safetensors::open(file));
  const auto& metadata = stored->metadata();
  const auto found = metadata.find(kFingerprint);
  if (found == metadata.end() || found->second != empty.fingerprint) {
    return fail(fmt::format("{}: statistics of {}, expected those of {}", file.string(),
                            found == metadata.end() ? "nothing known" : found->second,
                            empty.fingerprint));
  }
  const auto windows = metadata.find(kWindows);
  empty.windows = windows == metadata.end() ? 0 : std::atoll(windows->second.c_str());
  Status complete;
  for_each_array(empty, [&](const std::string& name, DType dtype, auto values) {
    if (!complete) return;
    const auto tensor = stored->find(name);
    const auto bytes = std::as_writable_bytes(values);
    if (!tensor || tensor->dtype != dtype || tensor->bytes.size() != bytes.size()) {
      complete = fail(fmt::format("{}: tensor {}: expected {} values of {}", file.string(), name,
                                  values.size(), dtype_name(dtype)));
      return;
    }
    if (!bytes.empty()) std::memcpy(bytes.data(), tensor->bytes.data(), bytes.size());
  });
  KVCAST_CHECK(complete);
  return empty;
}

void Statistics::merge(const Statistics& other, int threads) {
  windows += other.windows;
  for (size_t b = 0; b < fitted.size(); ++b) {
    fitted[b].merge(other.fitted[b], threads);
    held_out[b].merge(other.held_out[b], threads);
  }
}

bool StatisticsReader::read(std::span<const int32_t> window, std::vector<Moments>& sums,
                            const std::stop_token& stop) {
  const int64_t rows = std::ssize(window) - shape_.sink_tokens;
  if (rows <= 0) return true;
  x_.resize(sums.size());
  for (size_t b = 0; b < sums.size(); ++b) {
    x_[b].resize(static_cast<size_t>(rows * sums[b].d()));
    Targets& targets = y_[shape_.blocks[b].target_kind()];
    targets.width = sums[b].t();
    targets.filled = 0;
    targets.rows.resize(static_cast<size_t>(rows * targets.width));
  }
  if (auxiliary_ != nullptr && !run(PromptReader::kAuxiliary, window, stop)) return false;
  if (!run(PromptReader::kBase, window, stop)) return false;
  for (size_t b = 0; b < sums.size(); ++b) {
    sums[b].add(x_[b], y_[shape_.blocks[b].target_kind()].rows, base_.threads());
  }
  return true;
}

bool StatisticsReader::run(PromptReader reader, std::span<const int32_t> window,
                           const std::stop_token& stop) {
  const Transformer& model = reader == PromptReader::kBase ? base_ : *auxiliary_;
  KVCache cache(model.config());
  cache.reserve(std::ssize(window));
  float* rows =
      workspace_.rows.ensure(window.size() * static_cast<size_t>(model.config().model_dim));
  model.embed(window, rows);
  const SequenceRows sequence{.cache = &cache, .rows = std::ssize(window)};
  RunLayersOptions options;
  options.last = model.config().n_layers();
  options.output = LastLayerOutput::kNothing;
  options.stop = stop;
  options.on_raw_key_values = [&](const RawKeyValues& raw) {
    keep(reader, raw, std::ssize(window));
  };
  return model.run_layers(rows, std::span(&sequence, 1), options, workspace_);
}

void StatisticsReader::keep(PromptReader reader, const RawKeyValues& raw, int64_t rows) {
  const ModelConfig& config = (reader == PromptReader::kBase ? base_ : *auxiliary_).config();
  const int64_t kv = config.kv_width(raw.layer), dim = config.model_dim;
  const int64_t first = shape_.sink_tokens;
  for (size_t b = 0; b < shape_.blocks.size(); ++b) {
    const FitBlock& block = shape_.blocks[b];
    const ForecastInput& input = block.input;
    const int64_t width = std::ssize(x_[b]) / (rows - first);
    for (int64_t r = first; r < rows && input.reader == reader && input.layer == raw.layer; ++r) {
      float* const x = x_[b].data() + (r - first) * width;
      if (input.kind == InputKind::kResidual) {
        normalise(raw.residual + r * dim, dim, config.norm_eps, x);
        continue;
      }
      float* const values = std::copy_n(raw.keys + r * kv, block.keys ? kv : 0, x);
      std::copy_n(raw.values + r * kv, block.values ? kv : 0, values);
    }
  }
  if (reader != PromptReader::kBase || raw.layer < shape_.exact_layers) return;
  for (size_t kind = 1; kind < y_.size(); ++kind) {
    Targets& targets = y_[kind];
    if (targets.width == 0) continue;
    const bool keys = kind >= 2, values = kind % 2 == 1;
    for (int64_t r = first; r < rows; ++r) {
      float* const y = targets.rows.data() + (r - first) * targets.width + targets.filled;
      float* const after_keys = std::copy_n(raw.keys + r * kv, keys ? kv : 0, y);
      std::copy_n(raw.values + r * kv, values ? kv : 0, after_keys);
    }
    targets.filled += kv * (int64_t{keys} + int64_t{values});
  }
}

}  // namespace kvcast

#include "model/architectures.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "base/macros.h"
#include "model/config.h"

namespace kvcast {
namespace {

struct NamedShape {
  std::string_view name;
  int64_t n_layers, model_dim, head_dim;
};

// Method §2.
constexpr std::array<NamedShape, 4> kOpenElmShapes = {{{"openelm-270m", 16, 1280, 64},
                                                       {"openelm-450m", 20, 1536, 64},
                                                       {"openelm-1.1b", 28, 2048, 64},
                                                       {"openelm-3b", 36, 3072, 128}}};
constexpr std::string_view kPrunedSuffix = "-lp-";

}  // namespace

int64_t make_divisible(double value, int64_t divisor) {
  const double d = static_cast<double>(divisor);
  const auto rounded = static_cast<int64_t>(value + d / 2) / divisor * divisor;
  const int64_t result = std::max(divisor, rounded);
  return static_cast<double>(result) < 0.9 * value ? result + divisor : result;
}

std::vector<double> scaling_multipliers(double first, double last, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count), first);
  const double step = count > 1 ? (last - first) / static_cast<double>(count - 1) : 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double exact = i == count - 1 && count > 1 ? last : first + step * static_cast<double>(i);
    values[i] = std::nearbyint(exact * 100.0) / 100.0;  // ties to even, as numpy's round
  }
  return values;
}

ModelConfig make_openelm_config(const OpenElmShape& shape) {
  ModelConfig config;
  config.vocab_size = shape.vocab_size;
  config.model_dim = shape.model_dim;
  config.head_dim = shape.head_dim;
  config.max_context_tokens = shape.max_context_tokens;
  const auto qkv_multipliers = scaling_multipliers(0.5, 1.0, shape.n_layers);
  const auto ffn_multipliers = scaling_multipliers(0.5, 4.0, shape.n_layers);
  const auto model_dim = static_cast<double>(shape.model_dim);
  for (int64_t i = 0; i < shape.n_layers; ++i) {
    LayerConfig layer;
    const int64_t query_width =
        make_divisible(qkv_multipliers[i] * model_dim, shape.head_dim * shape.gqa_groups);
    layer.query_heads = query_width / shape.head_dim;
    layer.kv_heads = layer.query_heads / shape.gqa_groups;
    layer.ffn_dim = make_divisible(ffn_multipliers[i] * model_dim, shape.ffn_dim_divisor);
    config.layers.push_back(layer);
  }
  return config;
}

Result<ModelConfig> named_architecture(std::string_view name) {
  const size_t suffix = name.find(kPrunedSuffix);
  const std::string_view family = name.substr(0, suffix);
  for (const NamedShape& shape : kOpenElmShapes) {
    if (shape.name != family) continue;
    const ModelConfig full = make_openelm_config(
        {.n_layers = shape.n_layers, .model_dim = shape.model_dim, .head_dim = shape.head_dim});
    if (suffix == std::string_view::npos) return full;
    KVCAST_TRY(const auto kept, layer_pruned_kept_layers(
                                    full.n_layers(), name.substr(suffix + kPrunedSuffix.size())));
    return prune_layers(full, kept);
  }
  std::string known;
  for (const NamedShape& shape : kOpenElmShapes) known += fmt::format("{}, ", shape.name);
  return fail(fmt::format(
      "unknown architecture \"{}\": expected {}or one of these with -lp-0.75, -lp-0.50 or -lp-0.25",
      name, known));
}

Result<ModelPair> named_pair(std::string_view base, std::string_view auxiliary) {
  ModelPair pair;
  KVCAST_TRY(pair.base, named_architecture(base));
  KVCAST_TRY(pair.auxiliary, named_architecture(auxiliary));
  const int64_t base_layers = pair.base.n_layers();
  if (auxiliary.starts_with(base) && auxiliary.substr(base.size()).starts_with(kPrunedSuffix)) {
    const auto fraction = auxiliary.substr(base.size() + kPrunedSuffix.size());
    KVCAST_TRY(const auto kept, layer_pruned_kept_layers(base_layers, fraction));
    pair.plan = layer_pruned_layer_map(base_layers, kept);
    return pair;
  }
  if (pair.auxiliary.n_layers() > base_layers) {
    return fail(
        fmt::format("auxiliary \"{}\" has {} layers: expected at most the {} of base \"{}\"",
                    auxiliary, pair.auxiliary.n_layers(), base_layers, base));
  }
  pair.plan = canonical_layer_map(base_layers, pair.auxiliary.n_layers());
  return pair;
}

Result<std::vector<int64_t>> layer_pruned_kept_layers(int64_t n_layers, std::string_view fraction) {
  std::vector<int64_t> kept;
  for (int64_t i = 0; i < n_layers; ++i) {
    bool keep = false;
    if (fraction == "0.75") {
      keep = i % 4 != 3;
    } else if (fraction == "0.50" || fraction == "0.5") {
      keep = i % 2 == 0;
    } else if (fraction == "0.25") {
      keep = i % 4 == 0;
    } else {
      return fail(fmt::format("unknown layer-pruned fraction \"{}\": expected 0.75, 0.50 or 0.25",
                              fraction));
    }
    if (keep) kept.push_back(i);
  }
  return kept;
}

ModelConfig prune_layers(const ModelConfig& base, const std::vector<int64_t>& kept) {
  ModelConfig pruned = base;
  pruned.layers.clear();
  for (const int64_t layer : kept) pruned.layers.push_back(base.layers[layer]);
  return pruned;
}

std::vector<int64_t> canonical_layer_map(int64_t base_layers, int64_t auxiliary_layers) {
  // Each auxiliary layer serves base_layers / auxiliary_layers base layers; the remainder goes to
  // the early ones, one each.
  const int64_t share = base_layers / auxiliary_layers;
  const int64_t remainder = base_layers % auxiliary_layers;
  std::vector<int64_t> map;
  for (int64_t j = 0; j < auxiliary_layers; ++j) {
    map.insert(map.end(), static_cast<size_t>(share + (j < remainder ? 1 : 0)), j);
  }
  return map;
}

std::vector<int64_t> layer_pruned_layer_map(int64_t base_layers, const std::vector<int64_t>& kept) {
  std::vector<int64_t> map;
  int64_t j = 0;
  for (int64_t i = 0; i < base_layers; ++i) {
    while (j + 1 < static_cast<int64_t>(kept.size()) && kept[j + 1] <= i) ++j;
    map.push_back(j);
  }
  return map;
}

}  // namespace kvcast

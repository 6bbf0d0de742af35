#include "fit/choice.h"

#include <array>
#include <limits>

namespace kvcast {
namespace {

/// Of the variance of standardised features.
constexpr std::array kRidges = {1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1};

/// The best maps so far of one layer's keys or values from one input.
struct Best {
  double error = std::numeric_limits<double>::infinity();
  double ridge = 0;
  LinearMaps maps;
};
struct BestPair {
  Best keys, values;
};

LinearMaps rows_of(const LinearMaps& maps, int64_t first, int64_t count) {
  const auto d = std::ssize(maps.weight) / std::ssize(maps.intercept);
  return {.weight = {maps.weight.begin() + first * d, maps.weight.begin() + (first + count) * d},
          .intercept = {maps.intercept.begin() + first, maps.intercept.begin() + first + count}};
}

/// Error over variance of targets [first, first + count).
double unexplained(const std::vector<double>& errors, const Moments& held_out, int64_t first,
                   int64_t count) {
  double error = 0, variance = 0;
  for (int64_t i = first; i < first + count; ++i) {
    error += errors[i];
    variance += held_out.yy[i];
  }
  return variance > 0 ? error / variance : error;
}

/// Keeps what is better than the best of each layer that this block serves.
void try_ridge(const FitBlock& block, const Moments& fitted, const Moments& held_out, double ridge,
               const ModelConfig& base, int64_t exact_layers, std::vector<BestPair>& best,
               int threads) {
  const LinearMaps maps = fit_ridge(fitted, ridge, threads);
  const std::vector<double> errors = squared_errors(maps, held_out, threads);
  int64_t first = 0;
  const auto consider = [&](Best& candidate, int64_t width) {
    const double error = unexplained(errors, held_out, first, width);
    if (error < candidate.error) candidate = {error, ridge, rows_of(maps, first, width)};
    first += width;
  };
  for (int64_t i = exact_layers; i < base.n_layers(); ++i) {
    BestPair& pair = best[i - exact_layers];
    if (block.keys) consider(pair.keys, base.kv_width(i));
    if (block.values) consider(pair.values, base.kv_width(i));
  }
}

}  // namespace

std::vector<LayerMaps> choose_maps(const FitShape& shape, const Statistics& statistics,
                                   const ModelConfig& base, int64_t auxiliary_layers, int threads) {
  const auto layers = static_cast<size_t>(base.n_layers() - shape.exact_layers);
  std::vector<LayerMaps> chosen(layers);
  std::vector<double> least(layers, std::numeric_limits<double>::infinity());
  for (size_t b = 0; b < shape.blocks.size();) {
    const ForecastInput input = shape.blocks[b].input;
    std::vector<BestPair> best(layers);
    for (; b < shape.blocks.size() && shape.blocks[b].input == input; ++b) {  // keys, then values
      if (input.reader == PromptReader::kAuxiliary && input.layer >= auxiliary_layers) continue;
      for (const double ridge : kRidges) {
        try_ridge(shape.blocks[b], statistics.fitted[b], statistics.held_out[b], ridge, base,
                  shape.exact_layers, best, threads);
      }
    }
    for (size_t i = 0; i < layers; ++i) {
      const double error = best[i].keys.error + best[i].values.error;
      if (!(error < least[i])) continue;
      least[i] = error;
      chosen[i] = {.chosen = {.layer = shape.exact_layers + static_cast<int64_t>(i),
                              .input = input,
                              .key_ridge = best[i].keys.ridge,
                              .value_ridge = best[i].values.ridge,
                              .key_error = best[i].keys.error,
                              .value_error = best[i].values.error},
                   .keys = std::move(best[i].keys.maps),
                   .values = std::move(best[i].values.maps)};
    }
  }
  return chosen;
}

}  // namespace kvcast

// How far the predicted cache of a bundle is from the exact one (the paper's analysis), layer by
// layer and position by position.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "analysis/statistics.h"
#include "base/table.h"
#include "kvcast/result.h"
#include "prefill/strategy.h"

namespace kvcast::analysis {

/// How the differences, predicted minus exact, are distributed: counts in bins of equal width over
/// [low, high], and what lies beyond.
struct Density {
  double low = 0, high = 0;
  std::vector<int64_t> counts;
  int64_t below = 0, above = 0;
};

/// Predicted keys against exact keys of one layer (both after k_norm, before RoPE), or values.
struct CacheErrors {
  Estimate l1;             ///< over windows: mean |predicted - exact| over tokens and channels
  double relative_l1 = 0;  ///< l1 / mean |exact|; 0 if both are
  double mean = 0;         ///< of predicted - exact
  double standard_deviation = 0;       ///< of predicted - exact
  std::vector<double> l1_by_position;  ///< [position bins]
  Density density;                     ///< without counts, except in Analysis::density_layers
};

struct LayerAnalysis {
  CacheErrors keys, values;
  /// Mean cosine between the layer's attention output (heads concatenated) over the exact cache
  /// and, with the same exact queries, over a cache whose keys and values, only keys, or only
  /// values are predicted.
  Estimate attention_cosine, attention_cosine_keys, attention_cosine_values;
  std::vector<double> attention_cosine_by_position;  ///< [position bins]; keys and values predicted
};

struct Analysis {
  std::string model, label, dtype, data, commit;
  int64_t windows = 0, window_tokens = 0;
  std::vector<int64_t> position_edges;  ///< [position bins + 1]
  std::vector<LayerAnalysis> layers;    ///< [base layers]
  std::vector<int64_t> density_layers;  ///< ascending
};

struct AnalyzerOptions {
  int64_t window_tokens = 512;
  int64_t position_bins = 32;  ///< at most; never more than one for each position
  int64_t density_bins = 121;
};

/// Runs windows of text through a bundle and adds up. All positions are predicted and attention is
/// over the predicted cache alone, as in the training step (method §4). Memory does not grow with
/// the number of windows. Not thread-safe; `models` must outlive it and be a bundle.
class CacheAnalyzer {
 public:
  CacheAnalyzer(const Models& models, const AnalyzerOptions& options);
  ~CacheAnalyzer();
  CacheAnalyzer(CacheAnalyzer&&) noexcept;

  /// A batch of windows, `window_tokens` tokens each. False: stopped, nothing was added up.
  bool add(std::span<const std::vector<int32_t>> windows, const std::stop_token& stop);

  /// The numbers so far; who and what (model, label, ...) is left to the caller.
  [[nodiscard]] Analysis result() const;

 private:
  struct Sums;   // of one layer
  struct Batch;  // caches and scratch, reused
  bool predict(std::span<const std::vector<int32_t>> windows, const std::stop_token& stop);
  void compare(const LayerAttention& attention);
  void compare_attention(const LayerAttention& attention);

  const Models& models_;
  AnalyzerOptions options_;
  std::vector<Sums> sums_;
  std::unique_ptr<Batch> batch_;
};

/// The layers that the paper's figures show: 3, 7, 11, ...; of fewer than four the last.
std::vector<int64_t> density_layers(int64_t n_layers);

/// The trend over depth: the mean over the last quarter of the layers (at least one) over the mean
/// over the first. NaN if the latter is 0.
double depth_trend(const std::vector<double>& by_layer);

// ---- as a file (docs/FORMAT.md) and as text ----

std::string to_json(const Analysis& analysis);

/// One row for each layer.
Table to_table(const Analysis& analysis);

}  // namespace kvcast::analysis

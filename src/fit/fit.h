// A KV-prediction bundle in closed form, on a CPU: both models read a text once, and linear maps
// from what the auxiliary (or the base's own first layers) computes to the base's keys and values
// are solved for. What reads well on windows of text that the fit has not seen is chosen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "kvcast/model.h"
#include "kvcast/result.h"
#include "model/forecast_plan.h"

namespace kvcast {

struct FitOptions {
  std::shared_ptr<const Model> base;
  std::filesystem::path base_path;  ///< as the bundle names it
  /// Null: the base's own first layers are all that reads the prompt.
  std::shared_ptr<const Model> auxiliary;
  std::filesystem::path auxiliary_path;
  std::vector<std::filesystem::path> data;  ///< UTF-8 text; documents end with <|endoftext|> lines
  std::filesystem::path output;             ///< bundle; beside it OUT.statistics while it grows

  int64_t exact_layers = 0;  ///< see ForecastPlan
  int64_t sink_tokens = 4;
  std::vector<InputKind> kinds = {InputKind::kResidual};
  int64_t tokens = 20'000;  ///< of text to read, held-out windows included
  int64_t window_tokens = 512;
  /// Least exact_cost / cost at 512 tokens; bounds how deep the auxiliary is read. 0: no bound.
  double reduction = 0;
  /// Reads each `shards`-th window only, from the `shard`-th (from 1) on, and writes its sums.
  int64_t shard = 1, shards = 1;
  std::vector<std::filesystem::path> merge;  ///< sums of shards, instead of reading
  std::stop_token stop;
  /// Windows of the text after that to hand back, for trying the bundle on.
  int64_t unseen_windows = 0;
  /// Windows read, of how many.
  std::function<void(int64_t, int64_t)> on_progress = {};
};

/// What became of one forecast layer.
struct FittedLayer {
  int64_t layer = 0;
  ForecastInput input;
  double key_ridge = 0, value_ridge = 0;
  /// Shares of the held-out variance that are not explained.
  double key_error = 0, value_error = 0;
};

struct FitResult {
  ForecastPlan plan;
  std::vector<FittedLayer> layers;  ///< empty: a shard's sums were written, no bundle
  int64_t fitted_rows = 0, held_out_rows = 0;
  double reduction = 0;                      ///< exact_cost / cost at 512 tokens
  std::vector<std::vector<int32_t>> unseen;  ///< as many as the text has, at most unseen_windows
};

/// The largest number of exact layers that keeps a base without an auxiliary at `reduction`.
Result<int64_t> exact_layers_for(const ModelConfig& base, double reduction);

/// Errors name files and options. An interrupted fit is an error that says how it goes on.
Result<FitResult> fit(const FitOptions& options);

}  // namespace kvcast

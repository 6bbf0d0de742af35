// What a prompt costs under each strategy, beside a task's scores: operations by count, times
// measured in the same process.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "eval/evaluator.h"

namespace kvcast {

/// FLOPs of `exact` over a strategy's, for one prompt.
struct FlopsReduction {
  double paper = 0;  ///< by the paper's approximation
  double exact = 0;  ///< by counting every product
};

FlopsReduction flops_reduction(const ModelPair& shapes, const PrefillStrategy& strategy,
                               int64_t prompt_tokens);

struct StrategyTiming {
  struct Quantiles {
    double median = 0, p10 = 0, p90 = 0;
  };
  Quantiles ttft_ms;                   ///< tokenizing and the first sampled token included
  std::map<int64_t, double> total_ms;  ///< median, to the end of that answer token
  /// From this many answer tokens on it takes longer than the auxiliary alone; nullopt: never
  /// within what was measured, or no auxiliary.
  std::optional<int64_t> auxiliary_break_even_tokens;
  int64_t peak_rss_bytes = 0;
};

struct TimingOptions {
  int64_t repetitions = 5;      ///< of each strategy, alternating, after one to warm up
  int64_t answer_tokens = 256;  ///< fewer if the context ends before
  std::stop_token stop;
};

/// One prompt at batch 1 under each strategy. Empty if stopped.
std::vector<StrategyTiming> measure_timing(const Evaluator& evaluator,
                                           std::span<const EvalStrategy> strategies,
                                           const Tokens& prompt, const TimingOptions& options);

}  // namespace kvcast

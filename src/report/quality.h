// Evaluation results put side by side: which belong together, what to call them, what they cost.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "report/results.h"

namespace kvcast::report {

/// What a task is judged by.
struct TaskStyle {
  std::string name;    ///< for titles
  std::string metric;  ///< the key in EvalResult::metrics
  bool higher_is_better = true;
  double scale = 1;  ///< 100: shown in per cent
};
/// `result` gives the metrics that there are.
TaskStyle task_style(const EvalResult& result);
/// "exact match (%)"
std::string metric_label(const TaskStyle& style);

/// One model under one strategy on one task, beside others with the same base.
struct Entry {
  const EvalResult* result = nullptr;
  std::string
      method;        ///< what may share one curve, e.g. "KV prediction (ours)", "LazyLLM", "alone"
  std::string name;  ///< within its method, e.g. "KVP-C-10M", "0.75-0.25"
  double flops_share_paper = NAN;  ///< prefill FLOPs over the base's exact prefill (method §6)
  double flops_share = NAN;        ///< the same, counted exactly
  double ttft_share = NAN;         ///< TTFT over exact's in the same file; a plain model's over any
  Estimate quality;                ///< in the style's scale

  [[nodiscard]] bool is_exact() const { return method == "exact"; }
  /// What nobody would run, but what a gain must beat.
  [[nodiscard]] bool is_control() const {
    return method.starts_with("zero-cache") || method.starts_with("wrong-cache");
  }
};

/// Everything about one task for one base model.
struct Comparison {
  std::string base;  ///< "base 62M"
  std::string task;
  int64_t length = 0;
  TaskStyle style;
  std::vector<Entry> entries;  ///< exact first if it is there; then by method, ascending cost

  [[nodiscard]] const Entry* exact() const {
    return !entries.empty() && entries.front().is_exact() ? &entries.front() : nullptr;
  }
  /// Quality for comparisons: negated where lower is better.
  [[nodiscard]] double goodness(const Entry& entry) const {
    return style.higher_is_better ? entry.quality.value : -entry.quality.value;
  }
};

/// Bundles with the same base (by hash, else by size) and plain models that are no larger: the base
/// itself counts as exact, smaller ones as answering alone. The base's exact result counts once,
/// however many bundles report it.
std::vector<Comparison> compare(const std::vector<EvalResult>& results);

/// 62358528 -> "62M".
std::string short_parameters(int64_t parameters);

enum class Cost { kFlops, kTtft };
/// The share of exact's cost that curves and frontiers are drawn over. FLOPs: the exact count,
/// except for models alone, of which files tell the parameters only. NaN: not known, or a control.
double cost_of(const Entry& entry, Cost cost);

}  // namespace kvcast::report

// Files as kvcast eval and kvcast bench write them.
#pragma once

#include <string>
#include <vector>

#include "io/json.h"

namespace kvcast::report {

inline Json estimate(double value, double half = 0.01) {
  return {{"value", value}, {"low", value - half}, {"high", value + half}};
}

inline Json eval_entry(const std::string& task, const std::string& prefill, const char* metric,
                       double value, double reduction, double ttft) {
  return {{"task", task},
          {"prefill", prefill},
          {"scoring", "mixed"},
          {"n", 1000},
          {metric, estimate(value)},
          {"prompt_tokens", 50},
          {"flops_reduction", {{"paper", reduction}, {"exact", reduction * 1.1}}},
          {"ttft_ms", {{"median", ttft}, {"p10", ttft * 0.9}, {"p90", ttft * 1.2}}},
          {"total_ms", {{"1", ttft}, {"16", ttft + 150}}},
          {"auxiliary_break_even_tokens", prefill == "auxiliary" ? Json(nullptr) : Json(3)},
          {"peak_rss_bytes", 104857600}};
}

inline Json eval_file(const std::string& label, int64_t base, int64_t auxiliary,
                      std::vector<Json> results) {
  Json model = {{"path", "models/x"},
                {"label", label},
                {"dtype", "bf16"},
                {"base", {{"parameters", base}, {"sha256", "b" + std::to_string(base)}}}};
  if (auxiliary > 0) model["auxiliary"] = {{"parameters", auxiliary}, {"sha256", "a"}};
  return {{"kind", "kvcast-eval"},
          {"format", 1},
          {"commit", "abc"},
          {"machine", "M"},
          {"threads", 2},
          {"model", std::move(model)},
          {"results", std::move(results)}};
}

/// A bundle of 60M and 10M, its base beside, and a model of 10M alone.
inline std::vector<Json> family(const std::string& task = "triviaqa",
                                const char* metric = "exact_match") {
  return {eval_file("KVP-C-10M ours", 60'000'000, 10'000'000,
                    {eval_entry(task, "exact", metric, 0.20, 1, 10),
                     eval_entry(task, "kv-prediction", metric, 0.16, 6, 2.5),
                     eval_entry(task, "auxiliary", metric, 0.08, 6, 2),
                     eval_entry(task, "lazy:0.75-0.25", metric, 0.10, 1.6, 7)}),
          eval_file("KVP-C-10M paper", 60'000'000, 10'000'000,
                    {eval_entry(task, "exact", metric, 0.20, 1, 12),
                     eval_entry(task, "kv-prediction", metric, 0.12, 6, 3)}),
          eval_file("10M", 10'000'000, 0, {eval_entry(task, "exact", metric, 0.09, 1, 2)})};
}

inline Json bench_file() {
  Json results = Json::array();
  for (const int tokens : {128, 512}) {
    for (const std::string prefill : {"exact", "kv-prediction"}) {
      const double ttft = (prefill == "exact" ? 2.0 : 0.5) * tokens;
      results.push_back({{"arch", "openelm-1.1b<-openelm-270m"},
                         {"prefill", prefill},
                         {"dtype", "bf16"},
                         {"prompt_tokens", tokens},
                         {"batch", 1},
                         {"threads", 2},
                         {"ttft_ms", {{"median", ttft}, {"p10", ttft}, {"p90", ttft}}},
                         {"decode_tokens_per_s", 20.0}});
    }
  }
  return {{"machine", "M"}, {"isa", "avx2"}, {"commit", "c"}, {"threads", 2}, {"results", results}};
}

}  // namespace kvcast::report

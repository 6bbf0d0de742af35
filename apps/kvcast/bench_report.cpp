#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "bench.h"
#include "report/table.h"

namespace kvcast {
namespace {

/// TTFT under `exact` of the same case, to show the reduction; 0 if it was not measured.
double exact_ttft_ms(const BenchResult& of, const std::vector<BenchResult>& results) {
  for (const BenchResult& r : results) {
    if (r.prefill == "exact" && r.arch == of.arch && r.dtype == of.dtype && r.batch == of.batch &&
        r.prompt_tokens == of.prompt_tokens) {
      return r.ttft_ms.median;
    }
  }
  return 0;
}

Table to_table(const std::vector<BenchResult>& results) {
  Table table;
  table.headers = {"arch",         "prefill",      "dtype",        "prompt",
                   "batch",        "TTFT ms",      "p10",          "p90",
                   "exact / this", "prompt tok/s", "% of peak",    "auxiliary",
                   "predictor",    "base",         "decode tok/s", "% of read bandwidth",
                   "peak RSS MB"};
  for (const BenchResult& r : results) {
    const double exact = exact_ttft_ms(r, results);
    table.rows.push_back(
        {r.arch, r.prefill, r.dtype, fmt::format("{}", r.prompt_tokens), fmt::format("{}", r.batch),
         fmt::format("{:.2f}", r.ttft_ms.median), fmt::format("{:.2f}", r.ttft_ms.p10),
         fmt::format("{:.2f}", r.ttft_ms.p90),
         exact > 0 ? fmt::format("{:.2f}", exact / r.ttft_ms.median) : "-",
         fmt::format("{:.0f}", r.prompt_tokens_per_s), fmt::format("{:.1f}", 100 * r.share_of_peak),
         fmt::format("{:.2f}", r.auxiliary_ms), fmt::format("{:.2f}", r.predictor_ms),
         fmt::format("{:.2f}", r.base_ms), fmt::format("{:.1f}", r.decode_tokens_per_s),
         fmt::format("{:.1f}", 100 * r.share_of_read_bandwidth),
         fmt::format("{:.0f}", static_cast<double>(r.peak_rss_bytes) / 1e6)});
  }
  return table;
}

nlohmann::ordered_json to_json(const BenchResult& r) {
  return {
      {"arch", r.arch},
      {"prefill", r.prefill},
      {"dtype", r.dtype},
      {"prompt_tokens", r.prompt_tokens},
      {"batch", r.batch},
      {"threads", r.threads},
      {"ttft_ms", {{"median", r.ttft_ms.median}, {"p10", r.ttft_ms.p10}, {"p90", r.ttft_ms.p90}}},
      {"stages_ms",
       {{"tokenize", r.tokenize_ms},
        {"auxiliary", r.auxiliary_ms},
        {"predictor", r.predictor_ms},
        {"base", r.base_ms}}},
      {"prompt_tokens_per_s", r.prompt_tokens_per_s},
      {"share_of_peak", r.share_of_peak},
      {"decode_tokens_per_s", r.decode_tokens_per_s},
      {"share_of_read_bandwidth", r.share_of_read_bandwidth},
      {"peak_rss_bytes", r.peak_rss_bytes}};
}

}  // namespace

std::string to_text(const BenchHeader& header, const std::vector<BenchResult>& results,
                    std::string_view format) {
  if (format == "csv") return to_table(results).to_csv();
  if (format == "json") {
    nlohmann::ordered_json out = {
        {"machine", header.machine},         {"isa", header.isa},
        {"commit", header.commit},           {"threads", header.threads},
        {"peaks", nlohmann::json::object()}, {"results", nlohmann::json::array()}};
    for (const auto& [dtype, peak] : header.peaks) {
      out["peaks"][dtype] = {{"ops_per_s", peak.ops_per_s},
                             {"read_bytes_per_s", peak.read_bytes_per_s}};
    }
    for (const BenchResult& result : results) out["results"].push_back(to_json(result));
    return out.dump(1) + "\n";
  }
  std::string text = fmt::format("{}, {} threads, {} kernels, commit {}\n", header.machine,
                                 header.threads, header.isa, header.commit);
  for (const auto& [dtype, peak] : header.peaks) {
    text += fmt::format("measured peak {}: {:.0f} GFLOP/s, memory read {:.1f} GB/s\n", dtype,
                        peak.ops_per_s / 1e9, peak.read_bytes_per_s / 1e9);
  }
  return text + "\n" + to_table(results).to_markdown();
}

}  // namespace kvcast

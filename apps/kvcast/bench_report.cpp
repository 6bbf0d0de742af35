#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/table.h"
#include "bench.h"

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

/// How many times faster than the earlier run; "-" where it has no such row, or no such figure.
std::string ratio_text(double ratio) { return ratio > 0 ? fmt::format("{:.2f}", ratio) : "-"; }

struct Ratios {
  double ttft = 0;    ///< earlier / now
  double decode = 0;  ///< now / earlier; 0 if either was not measured
};
std::optional<Ratios> compare(const BenchRun& run, const BenchResult& now) {
  const EarlierResult* then = run.earlier ? run.earlier->find(now) : nullptr;
  if (then == nullptr) return std::nullopt;
  Ratios ratios{then->ttft_ms / now.ttft_ms.median, 0};
  if (then->decode_tokens_per_s > 0) {
    ratios.decode = now.decode_tokens_per_s / then->decode_tokens_per_s;
  }
  return ratios;
}

Table to_table(const BenchRun& run) {
  Table table;
  table.headers = {"arch",
                   "prefill",
                   "dtype",
                   "prompt",
                   "batch",
                   "TTFT ms",
                   "p10",
                   "p90",
                   "exact / this",
                   "prompt tok/s",
                   "% of peak",
                   "tokenize",
                   "auxiliary",
                   "predictor",
                   "base",
                   "decode tok/s",
                   "% of read bandwidth",
                   "peak RSS MB"};
  if (run.earlier) {
    table.headers.insert(table.headers.end(), {"TTFT old / new", "decode new / old"});
  }
  for (const BenchResult& r : run.results) {
    const double exact = exact_ttft_ms(r, run.results);
    std::vector<std::string> row = {
        r.arch,
        r.prefill,
        r.dtype,
        fmt::format("{}", r.prompt_tokens),
        fmt::format("{}", r.batch),
        fmt::format("{:.2f}", r.ttft_ms.median),
        fmt::format("{:.2f}", r.ttft_ms.p10),
        fmt::format("{:.2f}", r.ttft_ms.p90),
        ratio_text(exact / r.ttft_ms.median),
        fmt::format("{:.0f}", r.prompt_tokens_per_s),
        fmt::format("{:.1f}", 100 * r.share_of_peak),
        fmt::format("{:.2f}", r.tokenize_ms),
        fmt::format("{:.2f}", r.auxiliary_ms),
        fmt::format("{:.2f}", r.predictor_ms),
        fmt::format("{:.2f}", r.base_ms),
        fmt::format("{:.1f}", r.decode_tokens_per_s),
        fmt::format("{:.1f}", 100 * r.share_of_read_bandwidth),
        fmt::format("{:.0f}", static_cast<double>(r.peak_rss_bytes) / 1e6)};
    if (run.earlier) {
      const Ratios ratios = compare(run, r).value_or(Ratios{});
      row.insert(row.end(), {ratio_text(ratios.ttft), ratio_text(ratios.decode)});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

nlohmann::ordered_json to_json(const MachinePeak& peak) {
  return {{"ops_per_s", peak.ops_per_s}, {"read_bytes_per_s", peak.read_bytes_per_s}};
}

nlohmann::ordered_json to_json(const BenchRun& run, const BenchResult& r) {
  nlohmann::ordered_json json = {
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
      {"answer_ms", r.answer_ms},
      {"exact_after_tokens", r.exact_after_tokens ? nlohmann::ordered_json(*r.exact_after_tokens)
                                                  : nlohmann::ordered_json()},
      {"share_of_read_bandwidth", r.share_of_read_bandwidth},
      {"peak_rss_bytes", r.peak_rss_bytes},
      {"weight_bytes", r.weight_bytes},
      {"cache_bytes", r.cache_bytes},
      {"peak", to_json(r.peak)}};
  if (const auto ratios = compare(run, r)) {
    json["ttft_old_over_new"] = ratios->ttft;
    if (ratios->decode > 0) json["decode_new_over_old"] = ratios->decode;
  }
  return json;
}

std::string to_json_text(const BenchRun& run) {
  nlohmann::ordered_json out = {{"machine", run.machine},
                                {"isa", run.isa},
                                {"commit", run.commit},
                                {"threads", run.threads},
                                {"load_ms", nlohmann::json::object()},
                                {"peaks", nlohmann::json::object()},
                                {"results", nlohmann::json::array()}};
  for (const BenchRun::Loaded& loaded : run.loaded) {
    out["load_ms"][loaded.dtype] = loaded.load_ms;
    out["peaks"][loaded.dtype] = to_json(loaded.peak);
  }
  if (run.earlier) {
    out["compared_with"] = {{"file", run.earlier->file},
                            {"machine", run.earlier->machine},
                            {"commit", run.earlier->commit}};
  }
  for (const BenchResult& result : run.results) out["results"].push_back(to_json(run, result));
  return out.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string to_text(const BenchRun& run, std::string_view format) {
  if (format == "csv") return to_table(run).to_csv();
  if (format == "json") return to_json_text(run);
  std::string text = fmt::format("{}, {} threads, {} kernels, commit {}\n", run.machine,
                                 run.threads, run.isa, run.commit);
  for (const auto& [dtype, load_ms, peak] : run.loaded) {
    text += fmt::format("{}: loaded in {:.0f} ms; measured peak {:.0f} GFLOP/s{}\n", dtype, load_ms,
                        peak.ops_per_s / 1e9,
                        peak.read_bytes_per_s > 0
                            ? fmt::format(", memory read {:.1f} GB/s", peak.read_bytes_per_s / 1e9)
                            : "");
  }
  if (run.earlier) {
    text += fmt::format("compared with {}: {}, commit {}\n", run.earlier->file,
                        run.earlier->machine, run.earlier->commit);
  }
  return text + "\n" + to_table(run).to_markdown();
}

}  // namespace kvcast

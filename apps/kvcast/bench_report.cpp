#include <fmt/format.h>

#include <algorithm>
#include <functional>
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

/// Everything, a row for each result: for programs to read.
Table to_wide_table(const BenchRun& run) {
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
                   "TTFT floor ms",
                   "% of floor",
                   "step floor ms",
                   "% of step floor",
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
        fmt::format("{:.2f}", r.ttft_floor.ms()),
        fmt::format("{:.1f}", 100 * r.ttft_share_of_floor),
        fmt::format("{:.2f}", r.decode_floor.ms()),
        fmt::format("{:.1f}", 100 * r.decode_share_of_floor),
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

nlohmann::ordered_json to_json(const Floor& floor, double share) {
  return {{"arithmetic_ms", floor.arithmetic_ms},
          {"bytes_ms", floor.bytes_ms},
          {"floor_ms", floor.ms()},
          {"share", share}};
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
      {"floor",
       {{"ttft", to_json(r.ttft_floor, r.ttft_share_of_floor)},
        {"decode", r.decode_share_of_floor > 0 ? to_json(r.decode_floor, r.decode_share_of_floor)
                                               : nlohmann::ordered_json()}}},
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

// ---- what people read: tables within 100 columns, those of one dtype together ----

std::vector<std::string> case_cells(const BenchResult& r) {
  const std::string prompt = fmt::format("{}", r.prompt_tokens);
  return {r.prefill, r.batch > 1 ? fmt::format("{} x {}", r.batch, prompt) : prompt};
}

/// Three or four digits, so that columns stay narrow.
std::string short_number(double value) {
  return value >= 100 ? fmt::format("{:.0f}", value) : fmt::format("{:.2f}", value);
}

struct Column {
  std::string header;
  std::function<std::string(const BenchResult&)> cell;
};

std::string table_of(const std::vector<const BenchResult*>& results,
                     const std::vector<Column>& columns) {
  Table table;
  table.headers = {"prefill", "prompt"};
  for (const Column& column : columns) table.headers.push_back(column.header);
  for (const BenchResult* result : results) {
    std::vector<std::string> row = case_cells(*result);
    for (const Column& column : columns) row.push_back(column.cell(*result));
    table.rows.push_back(std::move(row));
  }
  return "\n" + table.to_markdown();
}

std::string tables_of(const BenchRun& run, const std::vector<const BenchResult*>& results) {
  const auto number = [](double BenchResult::*field, double times = 1) {
    return [field, times](const BenchResult& r) { return short_number(times * (r.*field)); };
  };
  const auto ttft = [](double Quantiles::*field) {
    return [field](const BenchResult& r) { return short_number(r.ttft_ms.*field); };
  };
  std::string text = table_of(
      results,
      {{"TTFT ms", ttft(&Quantiles::median)},
       {"p10", ttft(&Quantiles::p10)},
       {"p90", ttft(&Quantiles::p90)},
       {"exact / this",
        [&](const BenchResult& r) {
          return ratio_text(exact_ttft_ms(r, run.results) / r.ttft_ms.median);
        }},
       {"% peak", number(&BenchResult::share_of_peak, 100)},
       {"RSS MB",
        [](const BenchResult& r) { return fmt::format("{}", r.peak_rss_bytes / 1000000); }},
       {"KV MB", [](const BenchResult& r) {
          return short_number(static_cast<double>(r.cache_bytes) / 1e6);
        }}});
  text += table_of(results, {{"tokenize", number(&BenchResult::tokenize_ms)},
                             {"auxiliary", number(&BenchResult::auxiliary_ms)},
                             {"predictor", number(&BenchResult::predictor_ms)},
                             {"base ms", number(&BenchResult::base_ms)},
                             {"decode/s", number(&BenchResult::decode_tokens_per_s)},
                             {"% read", number(&BenchResult::share_of_read_bandwidth, 100)}});
  const auto floor = [](Floor BenchResult::*of, double Floor::*field) {
    return [of, field](const BenchResult& r) { return short_number(r.*of.*field); };
  };
  text +=
      "\nAt best, by this machine's peaks (TTFT and decode step in ms; arithmetic, bytes read "
      "once):\n";
  text += table_of(results, {{"TTFT ops", floor(&BenchResult::ttft_floor, &Floor::arithmetic_ms)},
                             {"bytes", floor(&BenchResult::ttft_floor, &Floor::bytes_ms)},
                             {"% best", number(&BenchResult::ttft_share_of_floor, 100)},
                             {"step ops", floor(&BenchResult::decode_floor, &Floor::arithmetic_ms)},
                             {"bytes", floor(&BenchResult::decode_floor, &Floor::bytes_ms)},
                             {"% best", number(&BenchResult::decode_share_of_floor, 100)}});
  if (!run.earlier) return text;
  const auto ratio = [&](double Ratios::*field) {
    return [&run, field](const BenchResult& r) {
      return ratio_text(compare(run, r).value_or(Ratios{}).*field);
    };
  };
  return text + table_of(results, {{"TTFT old / new", ratio(&Ratios::ttft)},
                                   {"decode new / old", ratio(&Ratios::decode)}});
}

std::string to_markdown(const BenchRun& run) {
  std::string text = fmt::format("{}, {} threads, {} kernels, commit {}\n", run.machine,
                                 run.threads, run.isa, run.commit);
  if (run.earlier) {
    text += fmt::format("compared with {}: {}, commit {}\n", run.earlier->file,
                        run.earlier->machine, run.earlier->commit);
  }
  for (const auto& [dtype, load_ms, peak] : run.loaded) {
    std::vector<const BenchResult*> results;
    for (const BenchResult& result : run.results) {
      if (result.dtype == dtype) results.push_back(&result);
    }
    const std::string read = peak.read_bytes_per_s > 0 ? fmt::format(", memory read {:.1f} GB/s",
                                                                     peak.read_bytes_per_s / 1e9)
                                                       : "";
    text += fmt::format("\n{} {}: loaded in {:.0f} ms; measured peak {:.0f} GFLOP/s{}\n",
                        results.empty() ? "" : results.front()->arch, dtype, load_ms,
                        peak.ops_per_s / 1e9, read);
    text += tables_of(run, results);
  }
  const bool beaten = std::ranges::any_of(run.results, [](const BenchResult& r) {
    return r.share_of_peak > 1 || r.share_of_read_bandwidth > 1 || r.ttft_share_of_floor > 1 ||
           r.decode_share_of_floor > 1;
  });
  if (beaten) {
    text +=
        "\nMore than 100%: faster than the measured peak, as where weights stay in the processor's "
        "cache.\n";
  }
  return text;
}

}  // namespace

std::string to_text(const BenchRun& run, std::string_view format) {
  if (format == "csv") return to_wide_table(run).to_csv();
  return format == "json" ? to_json_text(run) : to_markdown(run);
}

}  // namespace kvcast

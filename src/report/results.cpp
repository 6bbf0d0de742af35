#include "report/results.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/macros.h"
#include "base/mapped_file.h"
#include "report/json_values.h"

namespace kvcast::report {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMost = int64_t{1} << 50;
constexpr double kMostNumber = 1e30;

std::string entry_name(const std::string& where, const char* key, size_t index) {
  return fmt::format("{}: key \"{}\" entry {}", where, key, index);
}

Result<std::string> optional_string(const Json& json, const char* key, const std::string& where) {
  if (!json.contains(key)) return std::string();
  return JsonFields(json, where).string(key);
}
Result<int64_t> optional_integer(const Json& json, const char* key, const std::string& where) {
  if (!json.contains(key)) return 0;
  return JsonFields(json, where).integer(key, 0, kMost);
}
Result<double> optional_number(const Json& json, const char* key, const std::string& where) {
  if (!json.contains(key)) return NAN;
  return number_or_nan(json, key, where);
}

Result<Spread> parse_spread(const Json& json, const char* key, const std::string& where) {
  KVCAST_TRY(const Json* object, object_at(json, key, where));
  const std::string inside = fmt::format("{}: key \"{}\"", where, key);
  const JsonFields fields(*object, inside);
  Spread spread;
  KVCAST_TRY(spread.median, fields.number("median", 0, kMostNumber));
  KVCAST_TRY(spread.p10, fields.number("p10", 0, kMostNumber));
  KVCAST_TRY(spread.p90, fields.number("p90", 0, kMostNumber));
  return spread;
}

// ---- kvcast bench ----

Result<BenchRow> parse_bench_row(const Json& json, const std::string& where) {
  const JsonFields fields(json, where);
  BenchRow row;
  KVCAST_TRY(row.arch, fields.string("arch"));
  KVCAST_TRY(row.prefill, fields.string("prefill"));
  KVCAST_TRY(row.dtype, fields.string("dtype"));
  KVCAST_TRY(row.prompt_tokens, fields.integer("prompt_tokens", 1, kMost));
  KVCAST_TRY(row.batch, fields.integer("batch", 1, kMost));
  KVCAST_TRY(row.ttft_ms, parse_spread(json, "ttft_ms", where));
  KVCAST_TRY(row.decode_tokens_per_s, optional_number(json, "decode_tokens_per_s", where));
  KVCAST_TRY(row.peak_rss_bytes, optional_number(json, "peak_rss_bytes", where));
  return row;
}

Result<BenchRun> parse_bench_run(const Json& json, const std::string& where) {
  BenchRun run{.source = where, .machine = {}, .isa = {}, .commit = {}, .rows = {}};
  KVCAST_TRY(run.machine, optional_string(json, "machine", where));
  KVCAST_TRY(run.isa, optional_string(json, "isa", where));
  KVCAST_TRY(run.commit, optional_string(json, "commit", where));
  KVCAST_TRY(run.threads, optional_integer(json, "threads", where));
  KVCAST_TRY(const Json* rows, list_at(json, "results", where));
  for (const Json& row : *rows) {
    KVCAST_TRY(auto parsed, parse_bench_row(row, entry_name(where, "results", run.rows.size())));
    run.rows.push_back(std::move(parsed));
  }
  return run;
}

// ---- kvcast eval ----

Status parse_eval_model(const Json& json, const std::string& where, EvalResult& result) {
  if (!json.contains("model")) return {};
  KVCAST_TRY(const Json* model, object_at(json, "model", where));
  const std::string inside = where + ": key \"model\"";
  KVCAST_TRY(result.label, optional_string(*model, "label", inside));
  KVCAST_TRY(result.dtype, optional_string(*model, "dtype", inside));
  if (model->contains("base")) {
    KVCAST_TRY(const Json* base, object_at(*model, "base", inside));
    KVCAST_TRY(result.base_parameters,
               optional_integer(*base, "parameters", inside + ": key \"base\""));
    KVCAST_TRY(result.base_hash, optional_string(*base, "sha256", inside + ": key \"base\""));
  }
  if (model->contains("auxiliary")) {
    KVCAST_TRY(const Json* auxiliary, object_at(*model, "auxiliary", inside));
    KVCAST_TRY(result.auxiliary_parameters,
               optional_integer(*auxiliary, "parameters", inside + ": key \"auxiliary\""));
  }
  return {};
}

bool is_estimate(const Json& value) {
  return value.is_object() && value.size() == 3 && value.contains("value") &&
         value.contains("low") && value.contains("high");
}

Status parse_costs(const Json& json, const std::string& where, EvalResult& result) {
  KVCAST_TRY(result.prompt_tokens, optional_integer(json, "prompt_tokens", where));
  if (json.contains("flops_reduction")) {
    KVCAST_TRY(const Json* reduction, object_at(json, "flops_reduction", where));
    const std::string inside = where + ": key \"flops_reduction\"";
    KVCAST_TRY(result.reduction_paper, optional_number(*reduction, "paper", inside));
    KVCAST_TRY(result.reduction_exact, optional_number(*reduction, "exact", inside));
  }
  if (json.contains("ttft_ms")) {
    KVCAST_TRY(result.ttft_ms, parse_spread(json, "ttft_ms", where));
  }
  if (json.contains("total_ms")) {
    KVCAST_TRY(const Json* totals, object_at(json, "total_ms", where));
    for (const auto& [tokens, value] : totals->items()) {
      int64_t count = 0;
      for (const char c : tokens)
        count = c >= '0' && c <= '9' && count < 1000000 ? count * 10 + (c - '0') : -1;
      if (count <= 0)
        return fail(fmt::format("{}: key \"total_ms\": \"{}\" is no number of tokens", where,
                                one_line(tokens)));
      KVCAST_TRY(result.total_ms[count],
                 number_or_nan(*totals, tokens, where + ": key \"total_ms\""));
    }
  }
  if (const auto found = json.find("auxiliary_break_even_tokens"); found != json.end()) {
    result.break_even = "never";
    if (!found->is_null()) {
      KVCAST_TRY(const int64_t tokens,
                 optional_integer(json, "auxiliary_break_even_tokens", where));
      result.break_even = std::to_string(tokens);
    }
  }
  KVCAST_TRY(result.peak_rss_bytes, optional_number(json, "peak_rss_bytes", where));
  return {};
}

Result<EvalResult> parse_eval_result(const Json& json, const std::string& where,
                                     const EvalResult& file) {
  const JsonFields fields(json, where);
  EvalResult result = file;
  KVCAST_TRY(result.task, fields.string("task"));
  KVCAST_TRY(result.prefill, fields.string("prefill"));
  KVCAST_TRY(result.n, fields.integer("n", 0, kMost));
  KVCAST_TRY(result.scoring, optional_string(json, "scoring", where));
  KVCAST_TRY(result.shots, optional_integer(json, "shots", where));
  KVCAST_TRY(result.length, optional_integer(json, "length", where));
  for (const auto& [key, value] : json.items()) {
    if (!is_estimate(value)) continue;
    KVCAST_TRY(result.metrics[key], parse_estimate(json, key, where));
  }
  if (result.metrics.empty()) {
    return fail(fmt::format(
        "{}: no metric in it: expected a key that holds \"value\", \"low\" and \"high\"", where));
  }
  KVCAST_CHECK(parse_costs(json, where, result));
  return result;
}

Status add_evals(const Json& json, const std::string& where, Results& results) {
  if (json.contains("format")) KVCAST_CHECK(JsonFields(json, where).require("format", 1));
  EvalResult file;
  file.source = where;
  file.label = fs::path(where).stem().string();
  KVCAST_TRY(file.machine, optional_string(json, "machine", where));
  KVCAST_CHECK(parse_eval_model(json, where, file));
  KVCAST_TRY(const Json* list, list_at(json, "results", where));
  for (size_t i = 0; i < list->size(); ++i) {
    KVCAST_TRY(auto result, parse_eval_result((*list)[i], entry_name(where, "results", i), file));
    results.evals.push_back(std::move(result));
  }
  return {};
}

// ---- which file is what ----

/// The first entry of the list `results` has `key`.
bool results_have(const Json& json, const char* key) {
  const auto list = json.find("results");
  return list != json.end() && list->is_array() && !list->empty() && list->front().is_object() &&
         list->front().contains(key);
}

/// Of `kvcast bench`; comparisons with other engines have times too, but name an engine beside
/// them.
bool is_bench_run(const Json& json) {
  return json.is_object() && results_have(json, "ttft_ms") && !results_have(json, "engine");
}

Result<bool> add_file(const fs::path& path, Results& results) {
  const std::string where = path.string();
  if (path.extension() == ".jsonl") {
    KVCAST_TRY(const std::string text, read_text_file(path));
    KVCAST_TRY(auto log, parse_training_log(text, path.stem().string(), where));
    results.notes.insert(results.notes.end(), log.notes.begin(), log.notes.end());
    results.logs.push_back(std::move(log));
    return true;
  }
  KVCAST_TRY(const Json json, read_json_object(path));
  return add_result_file(json, where, results);
}

/// Files of models and training runs, which lie about beside logs: not worth a note.
bool is_part_of_a_model(const fs::path& file) {
  static constexpr std::array<std::string_view, 6> kNames = {
      "config.json", "kvcast.json",   "model.safetensors.index.json",
      "shards.json", "training.json", "training_state.json"};
  return std::ranges::find(kNames, file.filename().string()) != kNames.end();
}

Result<std::vector<fs::path>> files_below(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::recursive_directory_iterator at(directory, error), end; !error && at != end;
       at.increment(error)) {
    const auto extension = at->path().extension();
    if (at->is_regular_file() && (extension == ".json" || extension == ".jsonl") &&
        !is_part_of_a_model(at->path())) {
      files.push_back(at->path());
    }
  }
  if (error)
    return fail(fmt::format("{}: cannot be read: {}", directory.string(), error.message()));
  std::ranges::sort(files);
  return files;
}

}  // namespace

Result<bool> add_result_file(const Json& json, const std::string& where, Results& results) {
  const std::string kind =
      json.contains("kind") && json["kind"].is_string() ? json["kind"].get<std::string>() : "";
  if (kind == "kvcast-analysis") {
    KVCAST_TRY(auto analysis, parse_analysis(json, where));
    results.analyses.push_back(std::move(analysis));
    return true;
  }
  if (kind == "kvcast-eval" || (kind.empty() && results_have(json, "task"))) {
    KVCAST_CHECK(add_evals(json, where, results));
    return true;
  }
  if (is_bench_run(json)) {
    KVCAST_TRY(auto run, parse_bench_run(json, where));
    results.benches.push_back(std::move(run));
    return true;
  }
  if (results_have(json, "suffix_nll")) {
    KVCAST_TRY(auto heldout, parse_heldout(json, where));
    results.heldouts.push_back(std::move(heldout));
    return true;
  }
  // Several runs of `kvcast bench` in one file.
  const auto runs = json.find("runs");
  if (runs == json.end() || !runs->is_array() || runs->empty()) return false;
  if (!std::ranges::all_of(*runs, is_bench_run)) return false;
  for (size_t i = 0; i < runs->size(); ++i) {
    KVCAST_TRY(auto run, parse_bench_run((*runs)[i], entry_name(where, "runs", i)));
    results.benches.push_back(std::move(run));
  }
  return true;
}

Result<Results> read_results(const std::vector<fs::path>& paths) {
  Results results;
  for (const fs::path& path : paths) {
    std::error_code ignored;
    if (!fs::is_directory(path, ignored)) {
      KVCAST_TRY(const bool known, add_file(path, results));
      if (!known) {
        return fail(
            fmt::format("{}: neither a result of kvcast eval, bench or analyze nor a training log",
                        path.string()));
      }
      continue;
    }
    KVCAST_TRY(const auto files, files_below(path));
    for (const fs::path& file : files) {
      KVCAST_TRY(const bool known, add_file(file, results));
      if (!known)
        results.notes.push_back(
            fmt::format("{}: not a result file that report reads", file.string()));
    }
  }
  return results;
}

}  // namespace kvcast::report

// Result files as typed values (docs/FORMAT.md, "Result files"): what `kvcast eval`, `kvcast bench`
// and `kvcast analyze` wrote, what `kvcast-train heldout` printed, and training logs.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "kvcast/result.h"
#include "report/analysis.h"
#include "report/heldout.h"
#include "report/statistics.h"
#include "report/training_log.h"

namespace kvcast::report {

/// A median with the 10% and 90% quantiles.
struct Spread {
  double median = NAN, p10 = NAN, p90 = NAN;
};

/// One strategy at one prompt length and batch.
struct BenchRow {
  std::string arch, prefill, dtype;
  int64_t prompt_tokens = 0, batch = 0;
  Spread ttft_ms;
  double decode_tokens_per_s = 0;  ///< of the whole batch; 0: not measured
  double peak_rss_bytes = NAN;
};

/// What was measured in one run, and so may be compared.
struct BenchRun {
  std::string source, machine, isa, commit;  ///< source: the file
  int64_t threads = 0;
  std::vector<BenchRow> rows;
};

/// One model on one task under one strategy.
struct EvalResult {
  std::string source, label, dtype, machine;
  std::string base_hash;                                  ///< empty: not given
  int64_t base_parameters = 0, auxiliary_parameters = 0;  ///< 0: not given; a plain model
  std::string task, prefill, scoring;
  int64_t n = 0, shots = 0;
  int64_t length = 0;  ///< 0: the task has no lengths
  std::map<std::string, Estimate> metrics;
  int64_t prompt_tokens = 0;  ///< of the columns below
  double reduction_paper = NAN,
         reduction_exact = NAN;  ///< FLOPs of the base's exact prefill over these
  Spread ttft_ms;
  std::map<int64_t, double> total_ms;  ///< by answer tokens
  std::string break_even;              ///< answer tokens, "never", or empty: not measured
  double peak_rss_bytes = NAN;

  [[nodiscard]] bool is_plain() const { return auxiliary_parameters == 0; }
};

struct Results {
  std::vector<TrainingLog> logs;
  std::vector<BenchRun> benches;
  std::vector<EvalResult> evals;
  std::vector<Analysis> analyses;
  std::vector<Heldout> heldouts;
  std::vector<std::string> notes;  ///< files that are none of these, and what is odd about others
};

/// Reads files, and the .json and .jsonl files below directories in the order of their names. A
/// file that is named must be one of these; others found in a directory give a note. Wrong files
/// are errors that name file and key.
Result<Results> read_results(const std::vector<std::filesystem::path>& paths);

/// One parsed JSON file; false: it is none of these.
Result<bool> add_result_file(const Json& json, const std::string& where, Results& results);

}  // namespace kvcast::report

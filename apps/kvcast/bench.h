// kvcast bench, in three parts: what to measure (bench_command), measuring (bench.cpp), printing
// (bench_report.cpp).
#pragma once

#include <cstdint>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "kvcast/result.h"
#include "prefill/strategy.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

struct Quantiles {
  double median = 0, p10 = 0, p90 = 0;
};
/// Of a non-empty list; linear interpolation between order statistics.
Quantiles quantiles(std::vector<double> values);

/// What the machine can do at most, measured in the same run as the results.
struct MachinePeak {
  double ops_per_s = 0;         ///< of the dtype's multiply-add instruction
  double read_bytes_per_s = 0;  ///< sequential, from memory like the weights'
};

/// One row of the output: a strategy at one prompt length and batch.
struct BenchResult {
  std::string arch, prefill, dtype;
  int64_t prompt_tokens = 0;  ///< per sequence
  int64_t batch = 0;
  int threads = 0;
  Quantiles ttft_ms;
  double tokenize_ms = 0, auxiliary_ms = 0, predictor_ms = 0, base_ms = 0;  ///< medians
  double share_of_peak = 0;            ///< exact FLOPs / TTFT / measured peak
  double prompt_tokens_per_s = 0;      ///< batch * prompt_tokens / median TTFT
  double decode_tokens_per_s = 0;      ///< 0 if decoding was not measured
  double share_of_read_bandwidth = 0;  ///< weights and cache read per step / time / bandwidth
  int64_t peak_rss_bytes = 0;          ///< highest resident set while this row was measured
};

/// What is measured together, so that ratios between strategies come from one run.
struct BenchCase {
  std::string arch, dtype;
  const Models* models = nullptr;
  const Tokenizer* tokenizer = nullptr;  ///< null: token ids, no tokenize stage
  std::vector<int64_t> layer_map;        ///< empty for a plain model
  int64_t prompt_tokens = 0;
  int64_t batch = 1;
  std::vector<const PrefillStrategy*> strategies;
  int repetitions = 7;    ///< of each strategy, alternating
  int decode_steps = 16;  ///< 0: prefill only
  MachinePeak peak;
};
/// Empty if `stop` fires.
std::vector<BenchResult> measure(const BenchCase& bench, const std::stop_token& stop);

/// What stands above the results.
struct BenchHeader {
  std::string machine, isa, commit;
  int threads = 0;
  std::vector<std::pair<std::string, MachinePeak>> peaks;  ///< per dtype
};
std::string machine_name();
std::string to_text(const BenchHeader& header, const std::vector<BenchResult>& results,
                    std::string_view format);

}  // namespace kvcast

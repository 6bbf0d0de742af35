// kvcast bench, in five parts: what to measure (bench_command), measuring (bench.cpp), what the
// machine could do at best (bench_floor.cpp), an earlier run to compare with (bench_compare.cpp),
// printing (bench_report.cpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
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
  double ops_per_s = 0;            ///< of the dtype's multiply-add instruction
  double attention_ops_per_s = 0;  ///< of the one that attention's products use
  double read_bytes_per_s = 0;     ///< sequential, from memory like the weights'
};

/// The least that a piece of work could take on this machine: its arithmetic at the peak of the
/// instructions, and every byte that it must read once at the memory's bandwidth; both at once.
struct Floor {
  double arithmetic_ms = 0, bytes_ms = 0;

  [[nodiscard]] double ms() const { return std::max(arithmetic_ms, bytes_ms); }
};

/// One row of the output: a strategy at one prompt length and batch.
struct BenchResult {
  std::string arch, prefill, dtype;
  int64_t prompt_tokens = 0;  ///< per sequence
  int64_t batch = 0;
  int threads = 0;
  Quantiles ttft_ms;
  double tokenize_ms = 0, auxiliary_ms = 0, predictor_ms = 0, base_ms = 0;  ///< medians
  double share_of_peak = 0;        ///< exact FLOPs / TTFT / measured peak, median over rounds
  double prompt_tokens_per_s = 0;  ///< batch * prompt_tokens / median TTFT
  double decode_tokens_per_s = 0;  ///< 0 if decoding was not measured
  double answer_ms = 0;            ///< median, from arrival to the last decode step's end
  /// Median over rounds of the decode steps after which caches were exact; none: they are not.
  std::optional<double> exact_after_tokens;
  /// Weights and cache read per step / median step / bandwidth, median over rounds.
  double share_of_read_bandwidth = 0;
  Floor ttft_floor, decode_floor;  ///< medians; of a decode step of the whole batch
  /// Floor / TTFT and floor / step, medians over rounds; 0: not measured.
  double ttft_share_of_floor = 0, decode_share_of_floor = 0;
  int64_t peak_rss_bytes = 0;  ///< highest resident set while this row was measured
  int64_t weight_bytes = 0;    ///< of all models loaded, and
  int64_t cache_bytes = 0;     ///< of all caches: what the resident set must hold
  MachinePeak peak;            ///< that the shares are shares of, medians
};

/// One prompt length and batch, with one or more strategies.
struct BenchCase {
  std::string arch, dtype;
  WeightType type = WeightType::kF32;  ///< of dtype
  const Models* models = nullptr;
  const Tokenizer* tokenizer = nullptr;  ///< null: token ids, no tokenize stage
  int64_t prompt_tokens = 0;
  int64_t batch = 1;
  std::vector<const PrefillStrategy*> strategies;
  int repetitions = 7;    ///< of each strategy, alternating
  int decode_steps = 16;  ///< 0: prefill only
};
/// Measures cases of one dtype and number of repetitions in turns, and before each what the machine
/// can do at that moment: ratios between rows, and shares, come from the same minutes. Empty if
/// `stop` fires.
std::vector<BenchResult> measure(std::span<const BenchCase> cases, const std::stop_token& stop);

/// Bytes of weights that one decode step reads: the answering model's once, without the rows of an
/// embedding matrix that is not the LM head.
double weight_bytes_per_step(const BenchCase& bench, const PrefillStrategy& strategy);
Floor prefill_floor(const BenchCase& bench, const PrefillStrategy& strategy,
                    const MachinePeak& peak);
/// `cache_bytes`: of keys and values that the step reads.
Floor decode_floor(const BenchCase& bench, const PrefillStrategy& strategy, double cache_bytes,
                   const MachinePeak& peak);

/// A row of an earlier run: what identifies it, and what is compared.
struct EarlierResult {
  std::string arch, prefill, dtype;
  int64_t prompt_tokens = 0, batch = 0, threads = 0;
  double ttft_ms = 0;              ///< median
  double decode_tokens_per_s = 0;  ///< 0: not measured
};
struct EarlierRun {
  std::string file, machine, commit;
  std::vector<EarlierResult> results;

  /// The row of the same case; null if there is none.
  [[nodiscard]] const EarlierResult* find(const BenchResult& now) const;
};
/// Reads what `kvcast bench --format json` printed; errors name the file, the row and the key.
Result<EarlierRun> read_earlier_run(const std::filesystem::path& file);

/// All of one invocation.
struct BenchRun {
  std::string machine, isa, commit;
  int threads = 0;
  struct Loaded {
    std::string dtype;
    double load_ms = 0;  ///< until the weights were ready for use
    MachinePeak peak;    ///< the highest measured beside the results
  };
  std::vector<Loaded> loaded;  ///< per dtype
  std::vector<BenchResult> results;
  std::optional<EarlierRun> earlier;  ///< to compare with
};
std::string machine_name();
std::string to_text(const BenchRun& run, std::string_view format);

}  // namespace kvcast

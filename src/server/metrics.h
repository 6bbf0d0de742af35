#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine_request.h"
#include "runtime/scheduler.h"

namespace kvcast {

/// Counts per bucket, as Prometheus wants them. Not thread-safe.
class Histogram {
 public:
  explicit Histogram(std::vector<double> upper_bounds);
  void observe(double value);
  /// Exposition-format lines of the histogram `name`.
  [[nodiscard]] std::string expose(std::string_view name, std::string_view labels) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;  // [bounds + 1], not cumulative
  double sum_ = 0;
  int64_t count_ = 0;
};

/// Everything that /metrics shows, under vLLM's names with the prefix `kvcast:`. Thread-safe.
class Metrics {
 public:
  Metrics();

  /// A request's first token, in seconds from its arrival.
  void observe_first_token(double seconds);
  /// A token of an answer, the first included; seconds since the one before it, if there is one.
  void observe_token(std::optional<double> since_last_seconds);
  /// A request that was answered to its end.
  void observe_finished(const EngineTimings& timings, double end_to_end_seconds);
  void count_finish_reason(std::string_view reason);
  void count_cancelled();
  /// By HTTP status: anything that was answered with an error.
  void count_refused(int status);

  struct Gauges {
    SchedulerStats scheduler;
    int64_t connections = 0, dropped_connections = 0;
  };
  [[nodiscard]] std::string expose(std::string_view model, const Gauges& gauges) const;

 private:
  mutable std::mutex mutex_;
  Histogram time_to_first_token_, inter_token_latency_, end_to_end_, queue_, prefill_, decode_;
  Histogram agreement_, exact_after_tokens_, gate_score_;
  int64_t prompt_tokens_ = 0, generation_tokens_ = 0, predicted_tokens_ = 0, cached_tokens_ = 0;
  int64_t drafted_tokens_ = 0, accepted_tokens_ = 0;
  int64_t refined_rows_ = 0, revised_tokens_ = 0;
  int64_t trusted_forecasts_ = 0, refused_forecasts_ = 0;
  int64_t cancelled_ = 0;
  std::map<std::string, int64_t, std::less<>> finished_;
  std::map<int, int64_t> refused_;
};

}  // namespace kvcast

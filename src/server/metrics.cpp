#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kvcast {
namespace {

constexpr std::string_view kPrefix = "kvcast:";

// Seconds. Finer at the low end than vLLM's: first tokens here come within milliseconds.
const std::vector<double> kLatencyBounds = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08,
                                            0.15,  0.3,    0.5,   0.75, 1,    2.5,  5,
                                            7.5,   10,     20,    40,   80};
const std::vector<double> kTokenBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                                          0.1,    0.15,  0.2,    0.3,   0.5,  1,     2.5};
const std::vector<double> kRequestBounds = {0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,
                                            2.5,  5,    10,  15,  20,  30,  60, 120, 240};
const std::vector<double> kShareBounds = {0.1, 0.2, 0.3, 0.4,  0.5,  0.6,
                                          0.7, 0.8, 0.9, 0.95, 0.99, 1};
const std::vector<double> kScoreBounds = {-4,   -3,    -2, -1.5, -1,  -0.75,
                                          -0.5, -0.25, 0,  0.25, 0.5, 1};
const std::vector<double> kCountBounds = {0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

std::string family(std::string_view name, std::string_view type, std::string_view help) {
  return fmt::format("# HELP {0}{1} {3}\n# TYPE {0}{1} {2}\n", kPrefix, name, type, help);
}

std::string escape_label(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

}  // namespace

Histogram::Histogram(std::vector<double> upper_bounds)
    : bounds_(std::move(upper_bounds)), counts_(bounds_.size() + 1, 0) {}

void Histogram::observe(double value) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  ++counts_[static_cast<size_t>(bucket)];
  sum_ += value;
  ++count_;
}

std::string Histogram::expose(std::string_view name, std::string_view labels) const {
  std::string text;
  int64_t cumulative = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    cumulative += counts_[i];
    text += fmt::format("{}{}_bucket{{{},le=\"{}\"}} {}\n", kPrefix, name, labels, bounds_[i],
                        cumulative);
  }
  text += fmt::format("{}{}_bucket{{{},le=\"+Inf\"}} {}\n", kPrefix, name, labels, count_);
  text += fmt::format("{}{}_sum{{{}}} {}\n", kPrefix, name, labels, sum_);
  text += fmt::format("{}{}_count{{{}}} {}\n", kPrefix, name, labels, count_);
  return text;
}

Metrics::Metrics()
    : time_to_first_token_(kLatencyBounds),
      inter_token_latency_(kTokenBounds),
      end_to_end_(kRequestBounds),
      queue_(kLatencyBounds),
      prefill_(kLatencyBounds),
      decode_(kRequestBounds),
      agreement_(kShareBounds),
      exact_after_tokens_(kCountBounds),
      gate_score_(kScoreBounds) {}

void Metrics::observe_first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  time_to_first_token_.observe(seconds);
}

void Metrics::observe_token(std::optional<double> since_last_seconds) {
  const std::lock_guard lock(mutex_);
  ++generation_tokens_;
  if (since_last_seconds) inter_token_latency_.observe(*since_last_seconds);
}

void Metrics::observe_finished(const EngineTimings& timings, double end_to_end_seconds) {
  const std::lock_guard lock(mutex_);
  if (timings.generated_tokens > 0) {
    prefill_.observe(timings.prefill_ms / 1e3);
    decode_.observe(timings.decode_ms / 1e3);
  }
  end_to_end_.observe(end_to_end_seconds);
  queue_.observe(timings.queue_ms / 1e3);
  prompt_tokens_ += timings.prompt_tokens;
  predicted_tokens_ += timings.predicted_tokens;
  cached_tokens_ += timings.cached_tokens;
  drafted_tokens_ += timings.drafted_tokens;
  accepted_tokens_ += timings.accepted_tokens;
  if (timings.gate) {
    if (std::isfinite(timings.gate->score)) gate_score_.observe(timings.gate->score);
    ++(timings.gate->trusted() ? trusted_forecasts_ : refused_forecasts_);
  }
  if (!timings.refinement) return;
  const Refinement& refinement = *timings.refinement;
  refined_rows_ += refinement.refined_rows;
  revised_tokens_ += refinement.revised_tokens;
  if (const auto share = refinement.agreement()) agreement_.observe(*share);
  if (refinement.exact_after_tokens >= 0) {
    exact_after_tokens_.observe(static_cast<double>(refinement.exact_after_tokens));
  }
}

void Metrics::count_finish_reason(std::string_view reason) {
  const std::lock_guard lock(mutex_);
  ++finished_[std::string(reason)];
}

void Metrics::count_cancelled() {
  const std::lock_guard lock(mutex_);
  ++cancelled_;
}

void Metrics::count_refused(int status) {
  const std::lock_guard lock(mutex_);
  ++refused_[status];
}

std::string Metrics::expose(std::string_view model, const Gauges& gauges) const {
  const std::string labels = fmt::format("model_name=\"{}\"", escape_label(model));
  const std::lock_guard lock(mutex_);
  std::string text;
  const auto histogram = [&](std::string_view name, const Histogram& values,
                             std::string_view help) {
    text += family(name, "histogram", help) + values.expose(name, labels);
  };
  const auto single = [&](std::string_view name, std::string_view type, auto value,
                          std::string_view help) {
    text += family(name, type, help) + fmt::format("{}{}{{{}}} {}\n", kPrefix, name, labels, value);
  };
  histogram("time_to_first_token_seconds", time_to_first_token_,
            "From a request's arrival to its first token.");
  histogram("inter_token_latency_seconds", inter_token_latency_,
            "Between two tokens of one answer.");
  histogram("e2e_request_latency_seconds", end_to_end_, "From arrival to the last token.");
  histogram("request_queue_time_seconds", queue_, "Waiting for a place.");
  histogram("request_prefill_time_seconds", prefill_,
            "From the end of the queue to the first token.");
  histogram("request_decode_time_seconds", decode_, "From the first token to the last.");
  histogram("forecast_agreement", agreement_,
            "Share of an answer's tokens, of those compared, that exact would have chosen.");
  histogram("exact_after_tokens", exact_after_tokens_,
            "Answer tokens that were written before the cache was exact.");
  histogram("gate_score", gate_score_, "How far forecasts were found to be trusted, in nats.");
  const SchedulerStats& stats = gauges.scheduler;
  single("num_requests_running", "gauge", stats.running, "Requests in prefill or decode.");
  single("num_requests_waiting", "gauge", stats.waiting, "Requests in the queue.");
  single("cache_bytes", "gauge", stats.cache_bytes, "KV cache promised to running requests.");
  single("prefix_cache_bytes", "gauge", stats.prefix_bytes, "KV cache kept for later prompts.");
  single("longest_step_seconds", "gauge", stats.longest_step_ms / 1e3,
         "Longest time a running answer has waited for its next token.");
  single("num_connections", "gauge", gauges.connections, "Open connections.");
  single("dropped_connections_total", "counter", gauges.dropped_connections,
         "Connections given up: limits, time-outs, malformed requests.");
  single("prompt_tokens_total", "counter", prompt_tokens_, "Prompt tokens read.");
  single("generation_tokens_total", "counter", generation_tokens_, "Tokens generated.");
  single("predicted_tokens_total", "counter", predicted_tokens_,
         "Prompt tokens whose keys and values were forecast.");
  single("cached_tokens_total", "counter", cached_tokens_,
         "Prompt tokens taken over from an earlier request.");
  single("spec_decode_num_draft_tokens_total", "counter", drafted_tokens_,
         "Tokens guessed from the text so far, or by the auxiliary, and checked by the model.");
  single("spec_decode_num_accepted_tokens_total", "counter", accepted_tokens_,
         "Of these, tokens that answers have.");
  single("refined_rows_total", "counter", refined_rows_, "Forecast rows that were made exact.");
  single("revised_tokens_total", "counter", revised_tokens_, "Tokens that were taken back.");
  single("trusted_forecasts_total", "counter", trusted_forecasts_,
         "Forecasts that the gate let pass.");
  single("refused_forecasts_total", "counter", refused_forecasts_,
         "Forecasts that the gate did not trust: their prompts were read exactly.");
  single("requests_cancelled_total", "counter", cancelled_, "Clients that went away.");
  text += family("request_success_total", "counter", "Answers completed, by reason.");
  for (const auto& [reason, count] : finished_) {
    text += fmt::format("{}request_success_total{{{},finished_reason=\"{}\"}} {}\n", kPrefix,
                        labels, reason, count);
  }
  text +=
      family("requests_refused_total", "counter", "Requests answered with an error, by status.");
  for (const auto& [status, count] : refused_) {
    text += fmt::format("{}requests_refused_total{{{},status=\"{}\"}} {}\n", kPrefix, labels,
                        status, count);
  }
  return text;
}

}  // namespace kvcast

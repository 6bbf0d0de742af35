// Many requests on one model: continuous batching with prefill in chunks.
#pragma once

#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>

#include "kvcast/model.h"
#include "kvcast/result.h"
#include "runtime/engine_request.h"

namespace kvcast {

struct SchedulerOptions {
  /// Strategy of requests that name none; empty: the model's.
  std::string default_prefill;
  /// GenerateOptions::drafts of requests that say nothing of them.
  int64_t default_drafts = kDraftsAuto;
  /// Prompt rows that one step may run beside the decode steps of running answers: what a running
  /// answer waits for at most between two of its tokens.
  int64_t chunk_tokens = 64;
  /// The same while nobody is decoding; a cancelled prefill is noticed between layers anyway.
  int64_t idle_chunk_tokens = 512;
  /// Answers decoded together.
  int64_t max_batch = 64;
  /// Requests waiting for a place; more are refused.
  int64_t max_queue = 256;
  /// KV caches of running requests and stored prefixes together, in bytes. A request whose prompt
  /// and longest answer can never fit is refused; where pinned prefixes leave it no room, when its
  /// turn comes.
  int64_t max_cache_bytes = int64_t{2} << 30;
  /// Share of max_cache_bytes that stored prefixes may take.
  double prefix_share = 0.25;
  /// Folder that keeps exact prefixes beyond the process; empty: none. And its limit in bytes.
  std::filesystem::path prefix_store;
  int64_t max_store_bytes = int64_t{4} << 30;
};

struct SchedulerStats {
  int64_t running = 0;  ///< requests being prefilled or decoded
  int64_t waiting = 0;
  int64_t cache_bytes = 0;   ///< promised to running requests
  int64_t prefix_bytes = 0;  ///< held for later prompts
  int64_t pinned_bytes = 0;  ///< of these, what stays (EngineRequest::pin_prefix)
  int64_t steps = 0;
  double longest_step_ms = 0;  ///< with at least one answer being decoded
};

/// A submitted request; keep it to cancel. Thread-safe.
class Ticket {
 public:
  void cancel() { stop_.request_stop(); }
  [[nodiscard]] std::stop_token token() const { return stop_.get_token(); }

 private:
  std::stop_source stop_;
};

/// Runs requests on its own thread. Each step decodes one token of every running answer in one
/// batch and then advances prompts by at most a chunk, prompts taking turns. All methods may be
/// called from any thread but the observers' callbacks.
class Scheduler {
 public:
  /// Errors: the default strategy is unknown or does not fit the model.
  static Result<std::unique_ptr<Scheduler>> start(std::shared_ptr<const Model> model,
                                                  const SchedulerOptions& options);
  /// Cancels what is left and joins the thread.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Checks the request and queues it. On an error the observer is never called.
  tl::expected<std::shared_ptr<Ticket>, EngineError> submit(
      EngineRequest request, std::shared_ptr<RequestObserver> observer);

  /// From now on submit() refuses; what is queued and running goes on.
  void drain();
  /// Cancels everything.
  void cancel_all();
  [[nodiscard]] SchedulerStats stats() const;
  [[nodiscard]] const Model& model() const;
  /// The canonical spec of the strategy of requests that name none.
  [[nodiscard]] const std::string& default_prefill() const;
  /// The canonical spec of a strategy, or why this model cannot run it.
  Result<std::string> check_strategy(std::string_view spec) const;

  struct Impl;

 private:
  explicit Scheduler(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvcast

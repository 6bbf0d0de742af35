// What the scheduler does, without a thread of its own. Only for src/runtime and its tests.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/fair_queue.h"
#include "runtime/job.h"
#include "runtime/scheduler.h"
#include "runtime/step.h"

namespace kvcast {

/// The queue, the running requests and the order of things: a caller that repeats wait() and
/// round() on one thread is a scheduler. submit(), drain(), cancel_all() and stats() may be called
/// from any thread, the rest from that one.
class SchedulerRounds {
 public:
  /// `options.default_prefill` is the model's where it names none. Errors: a default strategy that
  /// is unknown or does not fit the model; a prefix store that cannot be opened.
  static Result<std::unique_ptr<SchedulerRounds>> make(std::shared_ptr<const Model> model,
                                                       const SchedulerOptions& options);

  /// As Scheduler's.
  tl::expected<std::shared_ptr<Ticket>, EngineError> submit(
      EngineRequest request, std::shared_ptr<RequestObserver> observer);
  void drain();
  void cancel_all();
  [[nodiscard]] SchedulerStats stats() const;
  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] const std::string& default_prefill() const { return options_.default_prefill; }
  Result<std::string> check_strategy(std::string_view spec) const;

  /// Returns when a round has something to do, or at once when `stop` is asked for.
  void wait(const std::stop_token& stop);
  /// Ends what was cancelled or came too late, admits what fits, and takes one step with what runs;
  /// with nothing running, refines a chunk of what is stored instead. Where memory runs out, what
  /// needed it fails; nothing is thrown.
  void round();
  /// Nothing is queued or running.
  [[nodiscard]] bool idle() const;

  [[nodiscard]] std::span<const std::unique_ptr<Job>> running() const { return running_; }
  [[nodiscard]] PrefixPool& pool() { return engine_.pool(); }

 private:
  SchedulerRounds(std::shared_ptr<const Model> model, const SchedulerOptions& options);
  void take_round();
  void remove_dead_from_queue();
  void admit();
  [[nodiscard]] int64_t cache_bytes_of(const EngineRequest& request,
                                       const PrefillStrategy& strategy) const;
  void publish_stats();

  std::shared_ptr<const Model> model_;
  SchedulerOptions options_;
  // The rounds' thread only:
  StepEngine engine_;
  std::vector<std::unique_ptr<Job>> running_;
  int64_t reserved_bytes_ = 0;  // of running_
  bool idle_work_left_ = true;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable_any work_;
  FairQueue<std::unique_ptr<Job>> queue_;
  SchedulerStats stats_;
  bool draining_ = false;
  bool cancelling_ = false;
  std::stop_source idle_work_;  // asked to stop when something else is to be done
};

}  // namespace kvcast

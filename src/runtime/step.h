// One step of the scheduler: prompts advance by a chunk, every running answer by a token. Only for
// src/runtime.
#pragma once

#include <memory>
#include <vector>

#include "kvcast/model.h"
#include "runtime/job.h"
#include "runtime/prefix_pool.h"

namespace kvcast {

/// The arithmetic side of the scheduler. One thread.
class StepEngine {
 public:
  StepEngine(const Model& model, const SchedulerOptions& options);

  /// Jobs that end are left in Stage::kOver, their observers told.
  void step(std::span<const std::unique_ptr<Job>> jobs);

  /// While nothing is asked: refines a chunk of what is stored of forecast prefixes, until `stop`.
  /// False: there is nothing to be refined.
  bool refine_stored(const std::stop_token& stop);

  [[nodiscard]] PrefixPool& pool() { return pool_; }
  [[nodiscard]] int64_t steps() const { return steps_; }
  [[nodiscard]] double longest_step_ms() const { return longest_step_ms_; }

 private:
  /// A choice whose answering model runs its pending tokens in this step.
  struct Slot {
    Job* job;
    Choice* choice;
  };
  static bool drop_dead(Job& job);
  /// Returns what it cost, in prompt rows.
  int64_t begin(Job& job);
  /// Returns what is left of the budget.
  int64_t advance_prompts(std::span<const std::unique_ptr<Job>> jobs, int64_t budget);
  /// Returns the rows that were run.
  int64_t advance(Job& job, int64_t budget);
  int64_t score(Job& job, int64_t budget);
  void after_prefill(Job& job, PrefillState state);
  void report_score_of_first(Job& job, const float* logits);
  void run_batch(Sequence::Answerer answerer, std::span<const std::unique_ptr<Job>> jobs,
                 int64_t refine_rows);
  void first_token(Job& job, std::span<const float> logits);
  void take_token(Job& job, Choice& choice, std::span<const float> logits);
  void end_choices(Job& job);
  void finish(Job& job);
  [[nodiscard]] const ModelConfig& answering_config(const Job& job) const;

  const Models& models_;
  const Tokenizer* tokenizer_;
  SchedulerOptions options_;
  PrefixPool pool_;
  PrefillWorkspace workspace_;
  AlignedBuffer<float> logits_;       // [batch, vocab_size]
  std::vector<float> prompt_logits_;  // [vocab_size]
  size_t turn_ = 0;                   // which prompt goes first
  bool alone_ = false;                // one job is all there is in this step
  int64_t steps_ = 0;
  SteadyClock::time_point last_step_end_;
  double longest_step_ms_ = 0;
};

}  // namespace kvcast

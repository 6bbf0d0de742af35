// The scheduler's view of one request. Only for src/runtime.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/stopwatch.h"
#include "prefill/strategy.h"
#include "runtime/answer_step.h"
#include "runtime/engine_request.h"
#include "runtime/scheduler.h"

namespace kvcast {

/// How a request ends for which there is no memory.
const EngineError& out_of_memory();

/// One answer being decoded.
struct Choice {
  Choice(const Models& models, const EngineRequest& request, int64_t index,
         const Tokenizer* tokenizer);

  int64_t index = 0;
  Sequence sequence;
  AnswerWriter writer;
  std::optional<AnswerRefiner> refiner;  // once it is being decoded, if its strategy refines
  std::optional<Drafter> drafter;        // the same, unless drafts are off
  int64_t generated_tokens = 0;          // the end-of-text token among them
  bool over = false;                     // its observer knows

  [[nodiscard]] Answering answering() {
    return {&sequence, &writer, refiner ? &*refiner : nullptr, drafter ? &*drafter : nullptr};
  }
};

/// One request from submission to its last event. Owned by the scheduler's thread once admitted.
class Job {
 public:
  Job(EngineRequest asked, std::shared_ptr<RequestObserver> events,
      std::unique_ptr<PrefillStrategy> chosen);

  enum class Stage {
    kNew,      ///< begin() comes first
    kPrefill,  ///< the strategy has more to run
    kScore,    ///< the answering model reads what follows the context
    kLastRun,  ///< the next decode step gives the first token's logits
    kDecode,
    kOver,
  };

  [[nodiscard]] bool expired() const {
    return request.deadline && SteadyClock::now() >= *request.deadline;
  }
  /// Where the strategy's prefill ends: the whole prompt, or the context of a scoring request.
  [[nodiscard]] int64_t prefill_tokens() const;
  /// Makes the first choice and, if the pool knows the prompt's beginning, fills its cache.
  void begin(const Models& models, const Tokenizer* tokenizer, class PrefixPool& pool);
  /// Samples the next token of `choice` from its logits and reports it. May end the choice.
  Status take_token(Choice& choice, std::span<const float> logits, const ModelConfig& config);
  /// Reports `step`, which was chosen from these logits.
  void report_token(Choice& choice, const AnswerStep& step, std::span<const float> logits);
  /// Tells the observer about choices that are over.
  void end_choices();
  /// What this prefill took, for later estimates; where nothing else was done meanwhile.
  void observe_prefill(const Models& models) const;
  /// From one prefilled choice to all that were asked for, ready to be decoded.
  void fork(const Models& models, const Tokenizer* tokenizer);
  /// All choices hold the exact rows of the prompt that one of them has; one goes on with them.
  void share_refined_rows();
  /// Whether this choice's turn has come to refine rows.
  [[nodiscard]] bool may_refine(const Choice& choice) const;
  /// Leaves what later prompts may reuse. Only when the job is over: its first sequence goes.
  void store_prefix(class PrefixPool& pool);
  [[nodiscard]] bool all_choices_over() const;
  void finish();
  void fail(const EngineError& error);

  EngineRequest request;
  std::shared_ptr<RequestObserver> observer;
  std::unique_ptr<PrefillStrategy> strategy;
  std::shared_ptr<Ticket> ticket = std::make_shared<Ticket>();
  std::stop_token stop = ticket->token();
  Stage stage = Stage::kNew;
  std::vector<std::unique_ptr<Choice>> choices;
  PrefillReport report;
  EngineTimings timings;
  PrefillStart prefill_start;
  int64_t reserved_bytes = 0;
  SteadyClock::time_point began, first_token, last_token;
};

/// Milliseconds between two points in time.
inline double milliseconds(SteadyClock::time_point from, SteadyClock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace kvcast

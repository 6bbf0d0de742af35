#include "kvcast/batch.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <utility>

#include "base/macros.h"
#include "runtime/fill_in.h"
#include "runtime/scheduler.h"

namespace kvcast {
namespace {

/// How often the caller hears of progress while nothing ends.
constexpr auto kProgressInterval = std::chrono::milliseconds(50);

/// What has come in for the prompts of one call. The scheduler's thread writes, the caller's waits;
/// it is there until the last of them is over, even if the caller's leaves by an exception.
struct Inbox {
  std::mutex mutex;
  std::condition_variable changed;
  size_t over = 0;
  std::optional<Error> error;  // the first one
};

/// One prompt of a call.
class Collector final : public RequestObserver {
 public:
  Collector(std::shared_ptr<Inbox> inbox, size_t index) : inbox_(std::move(inbox)), index_(index) {
    completion.finish_reason = FinishReason::kCancelled;  // unless something is heard
  }

  Completion completion;
  std::vector<TokenScore> scores;

  void on_prompt_scores(int64_t /*first*/, std::vector<TokenScore>&& some) override {
    for (TokenScore& score : some) scores.push_back(std::move(score));
  }
  void on_token(const TokenEvent& event) override {
    if (event.kept) {
      completion.text.resize(static_cast<size_t>(event.kept->bytes));
      completion.tokens.resize(static_cast<size_t>(event.kept->tokens));
    }
    completion.text += event.text;
    if (!event.end_of_text) completion.tokens.push_back(event.token);
  }
  void on_choice_finished(int64_t /*choice*/, std::string_view text, FinishReason reason) override {
    completion.text += text;
    completion.finish_reason = reason;
  }
  void on_finished(const EngineTimings& timings) override {
    completion.timings = {.tokenize_ms = timings.tokenize_ms,
                          .auxiliary_ms = timings.auxiliary_ms,
                          .predictor_ms = timings.predictor_ms,
                          .base_ms = timings.base_ms,
                          .ttft_ms = timings.ttft_ms,
                          .decode_ms = timings.decode_ms,
                          .prompt_tokens = timings.prompt_tokens,
                          .predicted_tokens = timings.predicted_tokens,
                          .decode_tokens = timings.decode_tokens,
                          .drafted_tokens = timings.drafted_tokens,
                          .accepted_tokens = timings.accepted_tokens,
                          .prefill = timings.prefill,
                          .estimated_ttft_ms = timings.estimated_ms,
                          .gate = timings.gate,
                          .refinement = timings.refinement};
    end({});
  }
  void on_error(const EngineError& error) override {
    if (error.kind == EngineError::Kind::kCancelled) {
      completion.finish_reason = FinishReason::kCancelled;
      end({});
    } else {
      std::optional<Error> why;
      try {
        why = Error{fmt::format("prompt {}: {}", index_, error.message)};
      } catch (const std::bad_alloc&) {
        why = Error{"out of memory"};  // which a string holds without asking for any
      }
      end(std::move(why));
    }
  }

 private:
  void end(std::optional<Error> error) {
    const std::scoped_lock lock(inbox_->mutex);
    ++inbox_->over;
    if (error && !inbox_->error) inbox_->error = std::move(error);
    inbox_->changed.notify_all();
  }

  std::shared_ptr<Inbox> inbox_;
  size_t index_;
};

/// Of what has been submitted; what is left of it when they go is cancelled.
class Tickets {
 public:
  explicit Tickets(size_t most) { tickets_.reserve(most); }
  ~Tickets() { cancel(); }
  Tickets(const Tickets&) = delete;
  Tickets& operator=(const Tickets&) = delete;
  void add(std::shared_ptr<Ticket> ticket) { tickets_.push_back(std::move(ticket)); }
  void cancel() {
    for (const auto& ticket : tickets_) ticket->cancel();
  }

 private:
  std::vector<std::shared_ptr<Ticket>> tickets_;
};

}  // namespace

struct Batch::Impl {
  struct Run {
    std::vector<std::shared_ptr<Collector>> collectors;  // [requests]
    bool stopped = false;
  };
  /// Runs all requests. What has been submitted is over when this returns, cancelled if it throws.
  Result<Run> run(std::vector<EngineRequest> requests, const std::stop_token& cancel,
                  const Progress& progress) const;

  std::unique_ptr<Scheduler> scheduler;
  size_t window = 0;  // requests of one call that are with the scheduler at a time
};

Result<Batch::Impl::Run> Batch::Impl::run(std::vector<EngineRequest> requests,
                                          const std::stop_token& cancel,
                                          const Progress& progress) const {
  const auto shared = std::make_shared<Inbox>();
  Inbox& inbox = *shared;
  Run run;
  for (size_t i = 0; i < requests.size(); ++i) {
    run.collectors.push_back(std::make_shared<Collector>(shared, i));
  }
  Tickets tickets(requests.size());
  size_t submitted = 0;
  std::unique_lock lock(inbox.mutex);
  while (true) {
    const bool going_on = !inbox.error && !run.stopped && submitted < requests.size();
    if (going_on && submitted - inbox.over < window) {
      lock.unlock();  // an observer may hear at once
      auto ticket = scheduler->submit(std::move(requests[submitted]), run.collectors[submitted]);
      if (ticket) {
        tickets.add(std::move(*ticket));
      } else {
        run.collectors[submitted]->on_error(ticket.error());
      }
      ++submitted;
      lock.lock();
      continue;
    }
    if (inbox.over == submitted && !going_on) break;
    inbox.changed.wait_for(lock, kProgressInterval);
    const size_t done = inbox.over;
    lock.unlock();
    if (cancel.stop_requested() || (!run.stopped && progress && !progress(done))) {
      run.stopped = true;
    }
    lock.lock();
    if (run.stopped || inbox.error) {
      tickets.cancel();
    }
  }
  if (inbox.error) return tl::unexpected(*inbox.error);
  return run;
}

Batch::Batch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Batch::~Batch() = default;

Result<std::unique_ptr<Batch>> Batch::create(std::shared_ptr<const Model> model,
                                             const BatchOptions& options) {
  if (options.max_batch < 1) {
    return fail(fmt::format("max_batch: {}, expected at least 1", options.max_batch));
  }
  SchedulerOptions asked;
  // Nobody watches the answers grow: prompts run in chunks that keep all of a product's threads
  // busy.
  asked.chunk_tokens = asked.idle_chunk_tokens;
  asked.max_batch = options.max_batch;
  asked.max_queue = options.max_batch;
  asked.max_cache_bytes = options.max_cache_bytes;
  auto impl = std::make_unique<Impl>();
  KVCAST_TRY(impl->scheduler, Scheduler::start(std::move(model), asked));
  impl->window = static_cast<size_t>(options.max_batch);
  return std::unique_ptr<Batch>(new Batch(std::move(impl)));
}

Result<std::vector<Completion>> Batch::generate(std::span<const std::vector<int32_t>> prompts,
                                                const GenerateOptions& options,
                                                const Progress& progress) {
  if (!options.suffix.empty()) return fail(std::string(kFillInNeedsText));
  std::vector<EngineRequest> requests;
  for (const auto& prompt : prompts) {
    EngineRequest& request = requests.emplace_back();
    request.prompt = prompt;
    request.prefill = options.prefill;
    request.max_tokens = options.max_tokens;
    request.sampling = options.sampling;
    request.sampling.seed += requests.size() - 1;
    request.stop = options.stop;
    request.ignore_end_of_text = options.ignore_end_of_text;
    request.drafts = options.drafts;
  }
  KVCAST_TRY(auto run, impl_->run(std::move(requests), options.cancel, progress));
  std::vector<Completion> completions;
  for (const auto& collector : run.collectors) {
    completions.push_back(std::move(collector->completion));
  }
  return completions;
}

Result<std::vector<std::vector<TokenScore>>> Batch::score(std::span<const ScoreRequest> asked,
                                                          std::string_view prefill, int64_t top,
                                                          const Progress& progress) {
  std::vector<EngineRequest> requests;
  for (const ScoreRequest& pair : asked) {
    if (pair.context.empty() || pair.continuation.empty()) {
      return fail(fmt::format("prompt {}: expected at least one token of context and one to score",
                              requests.size()));
    }
    EngineRequest& request = requests.emplace_back();
    request.prompt = pair.context;
    request.prompt.insert(request.prompt.end(), pair.continuation.begin(), pair.continuation.end());
    request.prefill = prefill;
    request.max_tokens = 0;
    request.top_logprobs = top;
    request.score_prompt = true;
    request.context_tokens = static_cast<int64_t>(pair.context.size());
  }
  KVCAST_TRY(auto run, impl_->run(std::move(requests), {}, progress));
  if (run.stopped) return fail("scoring was stopped");
  std::vector<std::vector<TokenScore>> scores;
  for (const auto& collector : run.collectors) scores.push_back(std::move(collector->scores));
  return scores;
}

}  // namespace kvcast

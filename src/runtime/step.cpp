#include "runtime/step.h"

#include <algorithm>
#include <new>
#include <utility>

#include "prefill/mixing.h"
#include "runtime/model_impl.h"
#include "runtime/token_score.h"

namespace kvcast {
namespace {

/// Fewer rows than this are left for the next step: tiny products waste the weights' traffic.
constexpr int64_t kFewestRows = 8;
/// Rows of a stored prefix that are copied in the time in which one is computed, or sooner.
constexpr int64_t kCopiedRowsPerRow = 32;
/// Rows whose logits are computed together when a prompt is scored.
constexpr int64_t kScoredRows = 16;

/// Runs `work`; if memory runs out the job fails instead.
template <typename Work>
void guarded(Job& job, const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    job.fail(out_of_memory());
  }
}

}  // namespace

StepEngine::StepEngine(const Model& model, const SchedulerOptions& options)
    : models_(model.impl().models),
      tokenizer_(model.impl().tokenizer.get()),
      options_(options),
      pool_(models_, static_cast<int64_t>(static_cast<double>(options.max_cache_bytes) *
                                          options.prefix_share)),
      prompt_logits_(static_cast<size_t>(models_.base->config().vocab_size)) {}

const ModelConfig& StepEngine::answering_config(const Job& job) const {
  return job.choices.front()->sequence.answering_model(models_).config();
}

int64_t StepEngine::begin(Job& job) {
  guarded(job, [&] { job.begin(models_, tokenizer_, pool_); });
  if (job.stage != Job::Stage::kOver && job.request.max_tokens == 0 && !job.request.score_prompt) {
    job.observer->on_choice_finished(0, {}, FinishReason::kMaxTokens);
    job.finish();
  }
  return job.timings.cached_tokens / kCopiedRowsPerRow;
}

bool StepEngine::drop_dead(Job& job) {
  if (job.stage == Job::Stage::kOver) return true;
  if (job.stop.stop_requested()) {
    job.fail({EngineError::Kind::kCancelled, "cancelled"});
  } else if (job.expired()) {
    job.fail({EngineError::Kind::kTimeout, "the request's time ran out"});
  }
  return job.stage == Job::Stage::kOver;
}

void StepEngine::step(std::span<const std::unique_ptr<Job>> jobs) {
  bool decoding = false;
  alone_ = jobs.size() == 1;
  for (const auto& job : jobs) {
    if (!drop_dead(*job)) decoding = decoding || job->stage == Job::Stage::kDecode;
  }
  const int64_t budget = decoding ? options_.chunk_tokens : options_.idle_chunk_tokens;
  // Refining takes what prompts leave of a step's rows: no step is longer for it.
  const int64_t left = advance_prompts(jobs, budget);
  run_batch(Sequence::Answerer::kBase, jobs, std::min(left, options_.chunk_tokens));
  if (models_.auxiliary) run_batch(Sequence::Answerer::kAuxiliary, jobs, 0);
  ++steps_;
  const auto now = SteadyClock::now();
  if (decoding) longest_step_ms_ = std::max(longest_step_ms_, milliseconds(last_step_end_, now));
  last_step_end_ = now;
}

int64_t StepEngine::advance_prompts(std::span<const std::unique_ptr<Job>> jobs, int64_t budget) {
  if (jobs.empty()) return budget;
  ++turn_;
  for (size_t i = 0; i < jobs.size() && budget > 0; ++i) {
    Job& job = *jobs[(turn_ + i) % jobs.size()];
    if (job.stage == Job::Stage::kNew) budget -= begin(job);
    const auto in_prefill = [&job] {
      return job.stage == Job::Stage::kPrefill || job.stage == Job::Stage::kScore;
    };
    while (in_prefill() &&
           budget >= std::min(kFewestRows, job.choices.front()->sequence.pending_tokens())) {
      guarded(job, [&] {
        budget -= job.stage == Job::Stage::kPrefill ? advance(job, budget) : score(job, budget);
      });
      if (drop_dead(job)) break;
    }
  }
  return std::max<int64_t>(budget, 0);
}

int64_t StepEngine::advance(Job& job, int64_t budget) {
  Sequence& sequence = job.choices.front()->sequence;
  const int64_t base_rows = sequence.base.next_position();
  const int64_t auxiliary_rows = sequence.auxiliary.next_position();
  const PrefillState state = job.strategy->advance(models_, sequence, budget, prompt_logits_.data(),
                                                   workspace_, job.stop, job.report);
  if (job.report.stopped) return budget;  // dropped by the caller
  // One of them may have caught up with the other.
  const int64_t rows = std::max({int64_t{0}, sequence.base.next_position() - base_rows,
                                 sequence.auxiliary.next_position() - auxiliary_rows});
  if (job.request.report_progress) {
    job.observer->on_progress(
        std::max(sequence.base.next_position(), sequence.auxiliary.next_position()),
        job.timings.cached_tokens);
  }
  if (state == PrefillState::kMore) return rows;
  if (job.request.score_prompt) {
    const bool has_logits = state == PrefillState::kDone;
    job.stage = Job::Stage::kScore;
    sequence.tokens = job.request.prompt;
    if (has_logits) report_score_of_first(job, prompt_logits_.data());
    return rows;
  }
  if (state == PrefillState::kDone) {
    first_token(job, prompt_logits_);
    return rows;
  }
  job.stage = Job::Stage::kLastRun;
  job.report.computed_tokens += sequence.pending_tokens();
  return rows + job.choices.front()->sequence.pending_tokens();
}

/// The strategy itself gave the logits of the context's last token: they score the token after it.
void StepEngine::report_score_of_first(Job& job, const float* logits) {
  const int64_t context = job.prefill_tokens();
  const std::span<const float> row(logits, prompt_logits_.size());
  if (context == job.timings.prompt_tokens) {
    if (job.request.max_tokens > 0) {
      first_token(job, row);
    } else {
      job.observer->on_choice_finished(0, {}, FinishReason::kMaxTokens);
      finish(job);
    }
    return;
  }
  std::vector<TokenScore> scores;
  scores.push_back(score_token(row, job.request.prompt[static_cast<size_t>(context)],
                               job.request.top_logprobs.value_or(0)));
  job.observer->on_prompt_scores(context, std::move(scores));
}

/// Runs up to `budget` tokens after the context and reports the log-probability of each next token.
int64_t StepEngine::score(Job& job, int64_t budget) {
  Sequence& sequence = job.choices.front()->sequence;
  const Transformer& model = sequence.answering_model(models_);
  const CacheMember cache = cache_of(sequence.answerer);
  const int64_t first = (sequence.*cache).next_position();
  const int64_t count = std::min(budget, sequence.pending_tokens());
  Sequence* const one[] = {&sequence};
  const int64_t ends[] = {first + count};

  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  // Row r, at position first + r, scores the token at first + r + 1, from the context's end on.
  const int64_t row = std::max<int64_t>(0, job.prefill_tokens() - 1 - first);
  const auto& prompt = job.request.prompt;
  std::vector<TokenScore> scores;
  const int64_t first_scored = first + row + 1;
  const auto score_rows = [&](int64_t block_row, int64_t rows, const float* logits) {
    for (int64_t i = 0; i < rows; ++i) {
      const std::span<const float> of_row(logits + static_cast<size_t>(i) * vocab, vocab);
      const auto next = static_cast<size_t>(first + block_row + i + 1);
      if (next < prompt.size()) {
        scores.push_back(score_token(of_row, prompt[next], job.request.top_logprobs.value_or(0)));
      } else {
        std::ranges::copy(of_row, prompt_logits_.begin());
      }
    }
  };
  const Stopwatch watch;
  if (!run_for_mixed_logits(models_, one, ends, row, kScoredRows, workspace_, logits_, score_rows,
                            job.stop)) {
    return budget;
  }
  job.report.answering_ms(sequence.answerer) += watch.elapsed_ms();
  if (!scores.empty()) job.observer->on_prompt_scores(first_scored, std::move(scores));
  if (first + count < static_cast<int64_t>(prompt.size())) return count;
  if (job.request.max_tokens > 0) {
    first_token(job, prompt_logits_);
  } else {
    job.observer->on_choice_finished(0, {}, FinishReason::kMaxTokens);
    finish(job);
  }
  return count;
}

void StepEngine::run_batch(Sequence::Answerer answerer, std::span<const std::unique_ptr<Job>> jobs,
                           int64_t refine_rows) {
  std::vector<Slot> slots;
  std::vector<Answering> answers;
  for (const auto& job : jobs) {
    if (job->stage != Job::Stage::kDecode && job->stage != Job::Stage::kLastRun) continue;
    if (job->stage == Job::Stage::kDecode) job->share_refined_rows();
    for (const auto& choice : job->choices) {
      // A job that got its first token in this step has nothing pending but that token.
      if (choice->over || choice->sequence.answerer != answerer) continue;
      slots.push_back({job.get(), choice.get()});
      answers.push_back(choice->answering());
      answers.back().may_refine = job->may_refine(*choice);
    }
  }
  if (slots.empty()) return;
  const Stopwatch watch;
  double step_ms = -1;
  const auto take = [&](size_t i, std::span<const float> logits) {
    Job& job = *slots[i].job;
    if (step_ms < 0) step_ms = watch.elapsed_ms();
    if (job.stage == Job::Stage::kLastRun) {
      job.report.answering_ms(answerer) += step_ms;
      guarded(job, [&] { first_token(job, logits); });
    } else if (job.stage == Job::Stage::kDecode) {
      take_token(job, *slots[i].choice, logits);
    }
  };
  const auto revised = [&](size_t i, const AnswerRefiner::Revision& revision) {
    slots[i].job->report_token(*slots[i].choice, revision.step, revision.logits);
  };
  const auto fail_all = [&](const EngineError& error) {
    for (const Slot& slot : slots) {
      if (slot.job->stage != Job::Stage::kOver) slot.job->fail(error);
    }
  };
  try {
    const Status status = step_answers(models_, answers, refine_rows, logits_, workspace_,
                                       {.on_logits = take, .on_revised = revised});
    if (!status) return fail_all({EngineError::Kind::kInternal, status.error().message});
  } catch (const std::bad_alloc&) {
    return fail_all(out_of_memory());
  }
  // Not sooner: what a job that is over leaves is stored, without the rows of drafts.
  for (const Slot& slot : slots) end_choices(*slot.job);
}

void StepEngine::first_token(Job& job, std::span<const float> logits) {
  if (alone_) job.observe_prefill(models_);
  job.fork(models_, tokenizer_);
  job.stage = Job::Stage::kDecode;
  for (const auto& choice : job.choices) {
    if (job.stage != Job::Stage::kOver) take_token(job, *choice, logits);
  }
  end_choices(job);
}

void StepEngine::take_token(Job& job, Choice& choice, std::span<const float> logits) {
  if (Status status = job.take_token(choice, logits, answering_config(job)); !status) {
    job.fail({EngineError::Kind::kInternal, std::move(status.error().message)});
  }
}

void StepEngine::end_choices(Job& job) {
  if (job.stage != Job::Stage::kDecode) return;
  job.end_choices();
  if (job.all_choices_over()) finish(job);
}

bool StepEngine::refine_stored(const std::stop_token& stop) {
  return pool_.refine_next([&](Sequence& sequence) {
    bool first = true;
    try {
      refine_alone(models_, sequence, workspace_, stop,
                   [&] { return std::exchange(first, false); });
    } catch (const std::bad_alloc&) {
      return false;
    }
    return true;
  });
}

void StepEngine::finish(Job& job) {
  job.finish();
  try {
    job.store_prefix(pool_);
  } catch (const std::bad_alloc&) {  // then it is not kept
  }
}

}  // namespace kvcast

#include "runtime/job.h"

#include <algorithm>
#include <new>

#include "base/macros.h"
#include "runtime/prefix_pool.h"
#include "runtime/token_score.h"

namespace kvcast {
namespace {

AnswerRules rules_of(const EngineRequest& request, int64_t choice_index) {
  AnswerRules rules{.max_tokens = request.max_tokens,
                    .sampling = request.sampling,
                    .stop = request.stop,
                    .ignore_end_of_text = request.ignore_end_of_text,
                    .tokens = request.tokens};
  rules.sampling.seed += static_cast<uint64_t>(choice_index);
  return rules;
}

}  // namespace

const EngineError& out_of_memory() {
  static const EngineError error{EngineError::Kind::kInternal,
                                 "not enough memory for the KV cache and the activations"};
  return error;
}

Choice::Choice(const Models& models, const EngineRequest& request, int64_t choice_index,
               const Tokenizer* tokenizer)
    : index(choice_index), sequence(models), writer(rules_of(request, choice_index), tokenizer) {}

Job::Job(EngineRequest asked, std::shared_ptr<RequestObserver> events,
         std::unique_ptr<PrefillStrategy> chosen)
    : request(std::move(asked)), observer(std::move(events)), strategy(std::move(chosen)) {
  timings.tokenize_ms = request.tokenize_ms;
  timings.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  timings.prefill = strategy->spec();
}

int64_t Job::prefill_tokens() const {
  if (!request.score_prompt) return timings.prompt_tokens;
  return request.context_tokens.value_or(1);
}

void Job::begin(const Models& models, const Tokenizer* tokenizer, PrefixPool& pool) {
  stage = Stage::kPrefill;
  began = SteadyClock::now();
  timings.queue_ms = std::max(0.0, milliseconds(request.arrival, began) - request.tokenize_ms);
  choices.push_back(std::make_unique<Choice>(models, request, 0, tokenizer));
  Sequence& sequence = choices.front()->sequence;
  sequence.tokens.assign(request.prompt.begin(), request.prompt.begin() + prefill_tokens());
  reserve_answer(*strategy, models, sequence, timings.prompt_tokens, request.max_tokens,
                 request.drafts.value_or(0) != 0);
  if (request.reuse_prefix) {
    timings.cached_tokens = pool.take(strategy->cache_use().family,
                                      strategy->reusable_rows(prefill_tokens()), sequence);
  }
  if (auto chosen = strategy->choose(models, sequence)) {
    timings.estimated_ms = chosen->estimated_ms;
    strategy = std::move(chosen->strategy);
    timings.prefill = strategy->spec();
    timings.cached_tokens = std::min(timings.cached_tokens, sequence.base.next_position());
  }
  prefill_start = kvcast::prefill_start(models, sequence);
  if (request.report_progress) observer->on_progress(timings.cached_tokens, timings.cached_tokens);
}

Status Job::take_token(Choice& choice, std::span<const float> logits, const ModelConfig& config) {
  Sequence& sequence = choice.sequence;
  KVCAST_TRY(const AnswerStep step, choice.writer.take(logits, sequence, config));
  last_token = SteadyClock::now();
  if (timings.generated_tokens++ == 0) {
    first_token = last_token;
    timings.ttft_ms = milliseconds(request.arrival, first_token);
    timings.prefill_ms = milliseconds(began, first_token);
  }
  if (choice.generated_tokens++ > 0) ++timings.decode_tokens;

  if (choice.refiner) choice.refiner->chosen(logits, choice.writer);
  report_token(choice, step, logits);
  return {};
}

void Job::report_token(Choice& choice, const AnswerStep& step, std::span<const float> logits) {
  if (step.kept) {
    const int64_t generated = step.kept->tokens + 1;
    timings.generated_tokens += generated - choice.generated_tokens;
    choice.generated_tokens = generated;
  }
  TokenEvent event{.choice = choice.index,
                   .token = step.token,
                   .text = step.text,
                   .end_of_text = step.end_of_text,
                   .kept = step.kept};
  std::optional<TokenScore> score;
  if (request.top_logprobs) {
    score = score_token(logits, step.token, *request.top_logprobs);
    event.score = &*score;
  }
  observer->on_token(event);
}

void Job::end_choices() {
  for (const auto& choice : choices) {
    if (choice->over || !choice->answering().over()) continue;
    choice->over = true;
    const std::string text = choice->writer.flush();
    observer->on_choice_finished(choice->index, text, *choice->writer.finished());
  }
}

void Job::observe_prefill(const Models& models) const {
  kvcast::observe_prefill(*strategy, models, prefill_start, report,
                          milliseconds(began, SteadyClock::now()), timings.estimated_ms);
}

void Job::fork(const Models& models, const Tokenizer* tokenizer) {
  const Sequence& first = choices.front()->sequence;
  while (static_cast<int64_t>(choices.size()) < request.choices) {
    auto copy =
        std::make_unique<Choice>(models, request, static_cast<int64_t>(choices.size()), tokenizer);
    copy->sequence = first.fork(models, std::ssize(first.tokens));
    choices.push_back(std::move(copy));
  }
  for (const auto& choice : choices) {
    if (request.drafts.value_or(0) != 0)
      choice->drafter.emplace(*request.drafts, auxiliary_may_guess(*strategy, models));
    if (strategy->refine_rows() == 0) continue;
    choice->refiner.emplace(
        choice->sequence, RefineOptions{.rows = strategy->refine_rows(), .revise = request.revise});
  }
}

void Job::share_refined_rows() {
  if (choices.size() < 2) return;
  // The last prompt row's logits are compared with each choice's own first token.
  const int64_t shared = timings.prompt_tokens - 1;
  const auto exact = [](const auto& choice) { return choice->sequence.base.exact_rows(); };
  const auto& best = *std::ranges::max_element(choices, {}, exact);
  for (const auto& choice : choices) {
    choice->sequence.base.take_exact_rows(best->sequence.base, shared);
  }
}

bool Job::may_refine(const Choice& choice) const {
  if (choice.sequence.base.exact_rows() >= timings.prompt_tokens - 1) return true;
  const auto& first = *std::ranges::find_if(choices, [](const auto& c) { return !c->over; });
  return first.get() == &choice;
}

void Job::store_prefix(PrefixPool& pool) {
  if (choices.empty() || !request.reuse_prefix) return;
  Sequence& sequence = choices.front()->sequence;
  const bool refused = sequence.gate && !sequence.gate->trusted();
  const CacheFamily family = refused ? CacheFamily::kExact : strategy->cache_use().family;
  // Of a forecast cache only the forecast rows: what the base read itself over them depends on
  // where this prompt ended.
  const int64_t forecast = timings.cached_tokens + report.predicted_tokens;
  const int64_t exact = sequence.base.exact_rows();
  switch (family) {
    case CacheFamily::kNone:
      return;
    case CacheFamily::kHealing:
      if (exact < forecast) return pool.put(family, forecast, std::move(sequence));
      [[fallthrough]];
    case CacheFamily::kExact:
      return pool.put(CacheFamily::kExact, exact, std::move(sequence), request.pin_prefix);
    case CacheFamily::kForecast:
      return pool.put(family, forecast, std::move(sequence));
    case CacheFamily::kAuxiliary:
      return pool.put(family, sequence.auxiliary.next_position(), std::move(sequence));
  }
}

bool Job::all_choices_over() const {
  return std::ranges::all_of(choices, [](const auto& choice) { return choice->over; });
}

void Job::finish() {
  stage = Stage::kOver;
  timings.auxiliary_ms = report.auxiliary_ms;
  timings.predictor_ms = report.predictor_ms;
  timings.base_ms = report.base_ms;
  timings.predicted_tokens = report.predicted_tokens;
  if (!choices.empty()) timings.gate = choices.front()->sequence.gate;
  for (const auto& choice : choices) {
    if (choice->drafter) {
      timings.drafted_tokens += choice->drafter->drafted();
      timings.accepted_tokens += choice->drafter->accepted();
    }
    if (!choice->refiner) continue;
    const Refinement& of_choice = choice->refiner->report();
    if (!timings.refinement) timings.refinement = Refinement{.exact_after_tokens = 0};
    Refinement& all = *timings.refinement;
    all.refined_rows += of_choice.refined_rows;
    const bool exact = all.exact_after_tokens >= 0 && of_choice.exact_after_tokens >= 0;
    all.exact_after_tokens =
        exact ? std::max(all.exact_after_tokens, of_choice.exact_after_tokens) : -1;
    all.revised_tokens += of_choice.revised_tokens;
    all.compared_tokens += of_choice.compared_tokens;
    all.agreed_tokens += of_choice.agreed_tokens;
    all.log_ratio_sum += of_choice.log_ratio_sum;
  }
  if (timings.generated_tokens > 0) timings.decode_ms = milliseconds(first_token, last_token);
  observer->on_finished(timings);
}

void Job::fail(const EngineError& error) {
  stage = Stage::kOver;
  try {
    observer->on_error(error);
  } catch (const std::bad_alloc&) {  // it learns it by its end
  }
}

}  // namespace kvcast

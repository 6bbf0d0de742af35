#include "runtime/job.h"

#include <algorithm>

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
  reserve_answer(*strategy, models, sequence, timings.prompt_tokens, request.max_tokens);
  if (request.reuse_prefix) {
    timings.cached_tokens = pool.take(strategy->cache_use().family,
                                      strategy->reusable_rows(prefill_tokens()), sequence);
  }
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

  TokenEvent event{.choice = choice.index,
                   .token = step.token,
                   .text = step.text,
                   .end_of_text = step.end_of_text};
  std::optional<TokenScore> score;
  if (request.top_logprobs) {
    score = score_token(logits, step.token, *request.top_logprobs);
    event.score = &*score;
  }
  observer->on_token(event);
  if (choice.writer.finished()) end_choice(choice);
  return {};
}

void Job::end_choice(Choice& choice) {
  const std::string text = choice.writer.flush();
  observer->on_choice_finished(choice.index, text, *choice.writer.finished());
}

void Job::fork(const Models& models, const Tokenizer* tokenizer) {
  const Sequence& first = choices.front()->sequence;
  while (static_cast<int64_t>(choices.size()) < request.choices) {
    auto copy =
        std::make_unique<Choice>(models, request, static_cast<int64_t>(choices.size()), tokenizer);
    copy->sequence = first.fork(models, std::ssize(first.tokens));
    choices.push_back(std::move(copy));
  }
}

void Job::store_prefix(PrefixPool& pool) {
  if (choices.empty() || !request.reuse_prefix) return;
  Sequence& sequence = choices.front()->sequence;
  const CacheUse use = strategy->cache_use();
  // Of a forecast cache only the forecast rows: what the base read itself over them depends on
  // where this prompt ended.
  const int64_t rows = use.family == CacheFamily::kForecast
                           ? timings.cached_tokens + report.predicted_tokens
                           : sequence.answering_cache().next_position();
  pool.put(use.family, rows, std::move(sequence));
}

bool Job::all_choices_finished() const {
  return std::ranges::all_of(
      choices, [](const auto& choice) { return choice->writer.finished().has_value(); });
}

void Job::finish() {
  stage = Stage::kOver;
  timings.auxiliary_ms = report.auxiliary_ms;
  timings.predictor_ms = report.predictor_ms;
  timings.base_ms = report.base_ms;
  timings.predicted_tokens = report.predicted_tokens;
  if (timings.generated_tokens > 0) timings.decode_ms = milliseconds(first_token, last_token);
  observer->on_finished(timings);
}

void Job::fail(const EngineError& error) {
  stage = Stage::kOver;
  observer->on_error(error);
}

}  // namespace kvcast

#include "server/completion_task.h"

#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include "runtime/model_impl.h"
#include "server/text_offsets.h"

namespace kvcast {
namespace {

double seconds_between(SteadyClock::time_point from, SteadyClock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// Passes what the scheduler reports about one prompt on to the task, and times the tokens.
class TaskObserver final : public RequestObserver {
 public:
  TaskObserver(TaskContext context, std::weak_ptr<CompletionTask> task, size_t prompt,
               const EngineRequest& request)
      : context_(std::move(context)),
        task_(std::move(task)),
        prompt_(prompt),
        arrival_(request.arrival),
        last_token_(static_cast<size_t>(request.choices)) {}
  /// Where memory ran out on the way the task may not know that this was all.
  ~TaskObserver() override {
    if (told_) return;
    try {
      pass([](CompletionTask& task) { task.give_up(); });
    } catch (const std::bad_alloc&) {
    }
  }
  TaskObserver(const TaskObserver&) = delete;
  TaskObserver& operator=(const TaskObserver&) = delete;

  void on_progress(int64_t done, int64_t cached) override {
    pass([=, p = prompt_](CompletionTask& task) { task.add_progress(p, done, cached); });
  }
  void on_prompt_scores(int64_t first, std::vector<TokenScore>&& scores) override {
    pass([first, scores = std::move(scores), p = prompt_](CompletionTask& task) mutable {
      task.add_prompt_scores(p, first, std::move(scores));
    });
  }
  void on_token(const TokenEvent& event) override {
    const auto now = SteadyClock::now();
    if (!std::exchange(has_first_token_, true)) {
      context_.metrics.observe_first_token(seconds_between(arrival_, now));
    }
    auto& last = last_token_[static_cast<size_t>(event.choice)];
    context_.metrics.observe_token(last ? std::optional(seconds_between(*last, now))
                                        : std::nullopt);
    last = now;
    std::optional<TokenScore> score;
    if (event.score) score = *event.score;
    if (event.text.empty() && !score && !event.kept) return;
    pass([choice = event.choice, text = std::string(event.text), score = std::move(score),
          kept = event.kept, p = prompt_](CompletionTask& task) mutable {
      if (kept) task.take_back(p, choice, *kept);
      task.add_token(p, choice, std::move(text), std::move(score));
    });
  }
  void on_choice_finished(int64_t choice, std::string_view text, FinishReason reason) override {
    context_.metrics.count_finish_reason(api_finish_reason(reason));
    pass([choice, text = std::string(text), reason, p = prompt_](CompletionTask& task) mutable {
      task.end_choice(p, choice, std::move(text), reason);
    });
  }
  void on_finished(const EngineTimings& timings) override {
    context_.metrics.observe_finished(timings, seconds_between(arrival_, SteadyClock::now()));
    pass([timings, p = prompt_](CompletionTask& task) { task.end_prompt(p, timings); });
    told_ = true;
  }
  void on_error(const EngineError& error) override {
    if (error.kind == EngineError::Kind::kCancelled) context_.metrics.count_cancelled();
    pass([error](CompletionTask& task) { task.fail(error); });
    told_ = true;
  }

 private:
  template <typename Action>
  void pass(Action action) {
    // The task is kept alive by the exchange's on_gone; once nobody wants the answer it is gone.
    context_.post([task = task_, action = std::move(action)]() mutable {
      const auto alive = task.lock();
      if (!alive) return;
      try {
        action(*alive);
      } catch (const std::bad_alloc&) {
        alive->give_up();
      }
    });
  }
  TaskContext context_;
  std::weak_ptr<CompletionTask> task_;
  size_t prompt_;
  SteadyClock::time_point arrival_;
  bool told_ = false;  // the task knows how it ended
  bool has_first_token_ = false;
  std::vector<std::optional<SteadyClock::time_point>> last_token_;  // per choice
};

/// Whether the tokens' bytes begin with more spaces than the text: some tokenizers add one.
bool has_added_space(std::string_view text, std::span<const int32_t> tokens,
                     const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return false;
  size_t spaces = 0;
  for (const int32_t token : tokens) {
    const std::string bytes = tokenizer->piece_bytes(token);
    const size_t leading = std::min(bytes.find_first_not_of(' '), bytes.size());
    spaces += leading;
    if (leading < bytes.size()) break;
  }
  return spaces > std::min(text.find_first_not_of(' '), text.size());
}

}  // namespace

CompletionTask::CompletionTask(TaskContext context, ReplyOptions options,
                               std::vector<TaskPrompt> prompts,
                               std::shared_ptr<HttpExchange> exchange)
    : context_(std::move(context)),
      options_(std::move(options)),
      exchange_(std::move(exchange)),
      tokenizer_(context_.scheduler.model().impl().tokenizer.get()) {
  choices_per_prompt_ = prompts.front().request.choices;
  arrival_ = prompts.front().request.arrival;
  for (TaskPrompt& prompt : prompts) {
    prompts_.push_back({});
    if (options_.echo) {
      const bool added = has_added_space(prompt.text, prompt.request.prompt, tokenizer_);
      prompts_.back().offsets = TextOffsets(prompt.text, added);
    }
    prompts_.back().asked = std::move(prompt);
  }
  choices_.resize(prompts_.size() * static_cast<size_t>(choices_per_prompt_));
  for (size_t i = 0; i < choices_.size(); ++i) {
    choices_[i].answer.index = static_cast<int64_t>(i);
    choices_[i].answer.text = options_.opening;
    choices_[i].tools = options_.tools;
  }
}

void CompletionTask::start() {
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const EngineRequest& request = prompts_[i].asked.request;
    auto observer = std::make_shared<TaskObserver>(context_, weak_from_this(), i, request);
    auto ticket = context_.scheduler.submit(request, std::move(observer));
    if (!ticket) return fail(ticket.error());
    prompts_[i].ticket = std::move(*ticket);
  }
  if (options_.stream) {
    HttpHeaders headers = options_.headers;
    headers.emplace_back("Cache-Control", "no-cache");
    headers.emplace_back("X-Accel-Buffering", "no");  // proxies: pass pieces on at once
    exchange_->begin_stream(
        {200, "text/event-stream", options_.format->first_events(), std::move(headers)});
  }
  exchange_->on_gone([self = shared_from_this()] {
    self->over_ = true;
    self->cancel();
  });
}

CompletionTask::Choice& CompletionTask::choice_of(size_t prompt, int64_t choice) {
  return choices_[prompt * static_cast<size_t>(choices_per_prompt_) + static_cast<size_t>(choice)];
}

void CompletionTask::add_progress(size_t prompt, int64_t done, int64_t cached) {
  if (over_ || !options_.stream) return;
  const double elapsed =
      std::chrono::duration<double, std::milli>(SteadyClock::now() - arrival_).count();
  const StreamPiece::Progress progress{
      static_cast<int64_t>(prompts_[prompt].asked.request.prompt.size()), cached, done, elapsed};
  StreamPiece piece;
  piece.progress = &progress;
  exchange_->write(options_.format->event(piece));
}

ScoredToken CompletionTask::scored(TokenScore score, TextOffsets& offsets) const {
  const int64_t offset =
      offsets.place(tokenizer_ ? tokenizer_->piece_bytes(score.token) : std::string());
  return {score.logprob, score.token, std::move(score.top), offset};
}

void CompletionTask::add_prompt_scores(size_t prompt, int64_t first,
                                       std::vector<TokenScore> scores) {
  auto& all = prompts_[prompt].prompt_scores;
  TextOffsets& offsets = prompts_[prompt].offsets;
  const auto& tokens = prompts_[prompt].asked.request.prompt;
  while (static_cast<int64_t>(all.size()) < first) {  // not scored
    all.push_back(scored({.token = tokens[all.size()], .top = {}}, offsets));
    all.back().logprob.reset();
  }
  for (TokenScore& score : scores) all.push_back(scored(std::move(score), offsets));
}

/// Puts the prompt before the answer of each of its choices.
void CompletionTask::echo_prompt(size_t index) {
  Prompt& prompt = prompts_[index];
  if (!options_.echo || prompt.echoed) return;
  prompt.echoed = true;
  if (options_.logprobs) {
    add_prompt_scores(index, static_cast<int64_t>(prompt.asked.request.prompt.size()), {});
  }
  prompt.offsets.end_known_text();
  for (int64_t i = 0; i < choices_per_prompt_; ++i) {
    Choice& choice = choice_of(index, i);
    choice.answer.text = prompt.asked.text;
    choice.offsets = prompt.offsets;
    choice.answer.scores = prompt.prompt_scores;
  }
  prompt.prompt_scores = {};
}

void CompletionTask::add_token(size_t prompt, int64_t index, std::string text,
                               std::optional<TokenScore> score) {
  if (over_) return;
  echo_prompt(prompt);
  Choice& choice = choice_of(prompt, index);
  choice.answer.text += text;
  if (score) {
    choice.answer.scores.push_back(scored(std::move(*score), choice.offsets));
  }
  if (options_.stream) send_pending(choice);
}

void CompletionTask::take_back(size_t prompt, int64_t index, const KeptAnswer& kept) {
  if (over_) return;
  const Prompt& of_prompt = prompts_[prompt];
  Choice& choice = choice_of(prompt, index);
  const std::string_view echoed = options_.echo ? std::string_view(of_prompt.asked.text) : "";
  if (options_.stream) {
    exchange_->write(options_.format->revision(choice.answer.index,
                                               count_characters(echoed) + kept.characters,
                                               std::ssize(echoed) + kept.bytes));
    return;
  }
  const size_t before = echoed.size() + options_.opening.size();
  choice.answer.text.resize(before + static_cast<size_t>(kept.bytes));
  if (!options_.logprobs) return;
  const size_t scored = options_.echo ? of_prompt.asked.request.prompt.size() : 0;
  choice.answer.scores.resize(scored + static_cast<size_t>(kept.tokens));
}

void CompletionTask::end_choice(size_t prompt, int64_t index, std::string text,
                                FinishReason reason) {
  if (over_) return;
  echo_prompt(prompt);
  Choice& choice = choice_of(prompt, index);
  choice.answer.text += text;
  choice.answer.finish_reason = api_finish_reason(reason);
}

void CompletionTask::end_prompt(size_t index, EngineTimings timings) {
  if (over_) return;
  Prompt& prompt = prompts_[index];
  prompt.finished = true;
  prompt.timings = std::move(timings);
  if (options_.stream) {
    for (int64_t i = 0; i < choices_per_prompt_; ++i) {
      send_pending(choice_of(index, i), std::span(&prompt.timings, 1));
    }
  }
  if (std::ranges::all_of(prompts_, &Prompt::finished)) finish();
}

/// Takes calls out of the text.
void CompletionTask::read_tool_calls(Choice& choice) const {
  if (!choice.tools) return;
  ChoiceAnswer& answer = choice.answer;
  AnswerParts parts;
  choice.tools->add(answer.text, parts);
  if (!answer.finish_reason.empty()) choice.tools->end(parts);
  answer.text = std::move(parts.content);
  answer.calls = std::move(parts.calls);
  if (choice.tools->has_calls() && answer.finish_reason == "stop") {
    answer.finish_reason = "tool_calls";
  }
}

void CompletionTask::send_pending(Choice& choice, std::span<const EngineTimings> timings) {
  read_tool_calls(choice);
  const ChoiceAnswer& answer = choice.answer;
  const bool is_empty = answer.text.empty() && answer.calls.empty() && answer.scores.empty();
  if (choice.tools && choice.started && is_empty && answer.finish_reason.empty()) return;
  StreamPiece piece;
  piece.choice = &choice.answer;
  piece.first_of_choice = !choice.started;
  piece.timings = timings;
  exchange_->write(options_.format->event(piece));
  choice.started = true;
  choice.answer.text.clear();
  choice.answer.calls.clear();
  choice.answer.scores.clear();
}

Usage CompletionTask::usage() const {
  Usage usage;
  for (const Prompt& prompt : prompts_) {
    usage.prompt_tokens += prompt.timings.prompt_tokens;
    usage.completion_tokens += prompt.timings.generated_tokens;
    usage.cached_tokens += prompt.timings.cached_tokens;
  }
  return usage;
}

std::vector<EngineTimings> CompletionTask::timings() const {
  std::vector<EngineTimings> all;
  for (const Prompt& prompt : prompts_) all.push_back(prompt.timings);
  return all;
}

/// Of several prompts the sums, and the time until each had its first token.
LogFields CompletionTask::log_fields() const {
  const Usage used = usage();
  double ttft_ms = 0, queue_ms = 0;
  for (const Prompt& prompt : prompts_) {
    ttft_ms = std::max(ttft_ms, prompt.timings.ttft_ms);
    queue_ms = std::max(queue_ms, prompt.timings.queue_ms);
  }
  return {{"prefill", prompts_.front().timings.prefill},
          {"prompt_tokens", static_cast<double>(used.prompt_tokens)},
          {"cached_tokens", static_cast<double>(used.cached_tokens)},
          {"generated_tokens", static_cast<double>(used.completion_tokens)},
          {"queue_ms", queue_ms},
          {"ttft_ms", ttft_ms}};
}

void CompletionTask::finish() {
  over_ = true;
  exchange_->describe(log_fields());
  if (options_.stream) {
    exchange_->write(options_.format->last_events(usage(), timings()));
    exchange_->end_stream();
    return;
  }
  WholeAnswer answer;
  answer.usage = usage();
  for (Choice& choice : choices_) {
    read_tool_calls(choice);
    answer.choices.push_back(std::move(choice.answer));
  }
  answer.timings = timings();
  exchange_->respond({200, "application/json", options_.format->whole(answer), options_.headers});
}

void CompletionTask::cancel() {
  for (const Prompt& prompt : prompts_) {
    if (prompt.ticket) prompt.ticket->cancel();
  }
}

void CompletionTask::give_up() {
  over_ = true;
  cancel();
  exchange_.reset();
}

void CompletionTask::fail(const EngineError& error) {
  if (over_) return;
  over_ = true;
  const ApiError api_error = to_api_error(error);
  context_.metrics.count_refused(api_error.status);
  exchange_->describe({{"error", api_error.code}});
  const bool head_sent = options_.stream && prompts_.back().ticket != nullptr;
  cancel();
  if (!head_sent) {
    HttpResponse response = to_response(api_error);
    response.headers.insert(response.headers.end(), options_.headers.begin(),
                            options_.headers.end());
    exchange_->respond(std::move(response));
    return;
  }
  exchange_->write(options_.format->error_events(api_error));
  exchange_->end_stream();
}

}  // namespace kvcast

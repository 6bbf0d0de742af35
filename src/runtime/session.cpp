#include "kvcast/session.h"

#include <fmt/format.h>

#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/macros.h"
#include "base/stopwatch.h"
#include "prefill/refine.h"
#include "prefill/strategy.h"
#include "runtime/answer_step.h"
#include "runtime/fill_in.h"
#include "runtime/model_impl.h"

namespace kvcast {

std::string_view finish_reason_text(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndOfText:
      return "end-of-text";
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kMaxTokens:
      return "max-tokens";
    case FinishReason::kContextFull:
      return "context-full";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

struct Session::Impl {
  explicit Impl(std::shared_ptr<const Model> loaded)
      : model(std::move(loaded)), sequence(models()) {}

  [[nodiscard]] const Models& models() const { return model->impl().models; }
  /// What the conversation goes on with; `suffix`: see GenerateOptions.
  [[nodiscard]] Result<std::vector<int32_t>> encode(std::string_view prompt,
                                                    const std::string& suffix) const {
    const bool is_first = sequence.tokens.empty();
    if (suffix.empty() || !model->has_tokenizer()) return model->tokenize(prompt, is_first);
    auto tokens = fill_in_prompt(*model->impl().tokenizer, prompt, suffix);
    if (!tokens) return fail(std::string(kNoFillIn));
    return *std::move(tokens);
  }

  std::shared_ptr<const Model> model;
  Sequence sequence;
  PrefillWorkspace workspace;
  AnswerStream::Impl* answering = nullptr;  // the stream that is not over
};

namespace {

/// Takes the conversation back to where it was when this was made, unless dismissed.
class ConversationRollback {
 public:
  explicit ConversationRollback(Sequence& sequence)
      : sequence_(&sequence),
        tokens_(sequence.tokens.size()),
        answerer_(sequence.answerer),
        caches_({&sequence_, 1}) {}
  ~ConversationRollback() {
    if (dismissed_) return;
    sequence_->tokens.resize(tokens_);
    sequence_->answerer = answerer_;
  }
  ConversationRollback(const ConversationRollback&) = delete;
  ConversationRollback& operator=(const ConversationRollback&) = delete;
  void dismiss() {
    caches_.dismiss();
    dismissed_ = true;
  }

 private:
  Sequence* sequence_;
  size_t tokens_;
  Sequence::Answerer answerer_;
  CacheRollback caches_;
  bool dismissed_ = false;
};

TokenRules token_rules(const GenerateOptions& options, const Tokenizer* tokenizer) {
  const bool fills_in = !options.suffix.empty() && tokenizer != nullptr;
  TokenRules rules;
  if (fills_in && !options.ignore_end_of_text) rules.stop_tokens = fill_in_end_tokens(*tokenizer);
  return rules;
}

/// Keeps running out of memory from crossing the public edge.
template <typename Function>
std::invoke_result_t<Function> without_exceptions(const Function& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return fail("not enough memory for the KV cache and the activations of this prompt");
  }
}

}  // namespace

/// One turn: the prompt's prefill with the first token, then a token at a time.
struct AnswerStream::Impl {
  Impl(std::shared_ptr<Session::Impl> session, GenerateOptions asked)
      : state(std::move(session)),
        options(std::move(asked)),
        writer({.max_tokens = options.max_tokens,
                .sampling = options.sampling,
                .stop = options.stop,
                .ignore_end_of_text = options.ignore_end_of_text,
                .tokens = token_rules(options, state->model->impl().tokenizer.get())},
               state->model->impl().tokenizer.get()) {}
  ~Impl() { end(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Status begin(std::span<const int32_t> prompt, const Stopwatch& arrival);
  Status prefill();
  Result<std::optional<std::string>> next();
  void take_back(const KeptAnswer& kept);
  void end();
  /// Ends it and takes the conversation back to before the prompt.
  void abandon() {
    loop.reset();
    end();
  }

  std::shared_ptr<Session::Impl> state;
  GenerateOptions options;
  AnswerWriter writer;
  std::unique_ptr<PrefillStrategy> strategy;
  std::optional<ConversationRollback> rollback;  // until the prompt is in the caches
  std::optional<AnswerRefiner> refiner;          // if the strategy refines
  std::optional<Drafter> drafter;                // unless drafts are off
  Answering answering;
  std::optional<AnswerLoop> loop;  // once the prompt is
  Completion answer;
  bool over = false;
};

/// Checks everything and puts the prompt into the conversation.
Status AnswerStream::Impl::begin(std::span<const int32_t> prompt, const Stopwatch& arrival) {
  if (options.max_tokens < 1) {
    return fail(fmt::format("max_tokens: {}, expected at least 1", options.max_tokens));
  }
  KVCAST_CHECK(validate(options.sampling));
  KVCAST_CHECK(check_drafts(options.drafts));
  KVCAST_TRY(strategy,
             PrefillStrategy::parse(options.prefill.empty() ? state->model->default_prefill()
                                                            : options.prefill));
  if (prompt.empty()) return fail("the prompt is empty: expected at least one token");
  if (state->answering != nullptr) state->answering->end();
  Sequence& sequence = state->sequence;
  rollback.emplace(sequence);
  sequence.tokens.insert(sequence.tokens.end(), prompt.begin(), prompt.end());
  if (auto ok = check_prompt(*strategy, state->models(), sequence.tokens); !ok) {
    return fail(std::move(ok.error().message));
  }
  state->answering = this;
  answer.timings.prompt_tokens = std::ssize(prompt);
  answer.timings.tokenize_ms = arrival.elapsed_ms();
  return {};
}

/// Fills the caches; a stopped one leaves the conversation as it was before the prompt.
Status AnswerStream::Impl::prefill() {
  const Models& models = state->models();
  Sequence& sequence = state->sequence;
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  reserve_answer(*strategy, models, sequence, std::ssize(sequence.tokens), options.max_tokens,
                 options.drafts != 0);
  Sequence* const batch[] = {&sequence};
  std::optional<double> estimated_ms;
  if (auto chosen = strategy->choose(models, sequence)) {
    estimated_ms = chosen->estimated_ms;
    answer.timings.estimated_ttft_ms = answer.timings.tokenize_ms + *estimated_ms;
    strategy = std::move(chosen->strategy);
  }
  answer.timings.prefill = strategy->spec();
  const Stopwatch filling;
  const PrefillStart start = prefill_start(models, sequence);
  const PrefillReport report =
      strategy->prefill(models, batch, logits.data(), state->workspace, options.cancel);
  answer.timings.auxiliary_ms = report.auxiliary_ms;
  answer.timings.predictor_ms = report.predictor_ms;
  answer.timings.base_ms = report.base_ms;
  answer.timings.predicted_tokens = report.predicted_tokens;
  answer.timings.gate = sequence.gate;
  if (report.stopped) {
    end();
    return {};
  }
  observe_prefill(*strategy, models, start, report, filling.elapsed_ms(), estimated_ms);
  if (strategy->refine_rows() != 0) {
    refiner.emplace(sequence,
                    RefineOptions{.rows = strategy->refine_rows(), .revise = options.revise});
  }
  if (options.drafts != 0) drafter.emplace(options.drafts, auxiliary_may_guess(*strategy, models));
  answering = {&sequence, &writer, refiner ? &*refiner : nullptr, drafter ? &*drafter : nullptr};
  loop.emplace(models, std::span(&answering, 1), std::move(logits), state->workspace);
  return {};
}

Result<std::optional<std::string>> AnswerStream::Impl::next() {
  if (over) return std::nullopt;
  const Stopwatch running;
  const bool is_first = !loop;
  if (is_first) KVCAST_CHECK(prefill());
  if (over) return std::nullopt;
  std::string piece;
  int64_t taken = 0;
  const auto more = loop->step([&](size_t, const AnswerStep& step) {
    ++taken;
    piece += step.text;
    if (step.kept) take_back(*step.kept);
    if (!step.end_of_text) answer.tokens.push_back(step.token);
  });
  if (!more) return tl::unexpected(more.error());
  if (is_first) {
    answer.timings.ttft_ms = answer.timings.tokenize_ms + running.elapsed_ms();
  } else {
    answer.timings.decode_ms += running.elapsed_ms();
    answer.timings.decode_tokens += taken;
  }
  const bool cancelled = options.cancel.stop_requested();
  if (cancelled) writer.end(FinishReason::kCancelled);
  const bool ends = cancelled || answering.over();
  if (ends) piece += writer.flush();
  answer.text += piece;
  if (ends) end();
  // What may be taken back is kept back where nobody would hear of it.
  const bool waits = refiner && options.revise && !options.on_revision;
  if (!waits) return piece;
  return ends ? answer.text : std::string();
}

void AnswerStream::Impl::take_back(const KeptAnswer& kept) {
  answer.text.resize(static_cast<size_t>(kept.bytes));
  answer.tokens.resize(static_cast<size_t>(kept.tokens));
  if (options.on_revision) options.on_revision(kept);
}

/// Over, for whatever reason: the session may go on.
void AnswerStream::Impl::end() {
  if (over) return;
  over = true;
  writer.end(FinishReason::kCancelled);
  answer.finish_reason = *writer.finished();
  if (refiner) answer.timings.refinement = refiner->report();
  if (drafter) {
    answer.timings.drafted_tokens = drafter->drafted();
    answer.timings.accepted_tokens = drafter->accepted();
  }
  if (loop) rollback->dismiss();
  loop.reset();
  rollback.reset();
  if (state->answering == this) state->answering = nullptr;
}

AnswerStream::AnswerStream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AnswerStream::~AnswerStream() = default;
AnswerStream::AnswerStream(AnswerStream&&) noexcept = default;
AnswerStream& AnswerStream::operator=(AnswerStream&&) noexcept = default;

Result<std::optional<std::string>> AnswerStream::next() {
  auto piece = without_exceptions([&] { return impl_->next(); });
  if (!piece) impl_->abandon();
  return piece;
}
void AnswerStream::end() { impl_->end(); }
const Completion& AnswerStream::completion() const& { return impl_->answer; }
Completion AnswerStream::completion() && { return std::move(impl_->answer); }

Session::Session(std::shared_ptr<const Model> model)
    : impl_(std::make_shared<Impl>(std::move(model))) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Result<AnswerStream> Session::start(std::string_view prompt, const GenerateOptions& options) {
  const Stopwatch arrival;
  return without_exceptions([&]() -> Result<AnswerStream> {
    KVCAST_TRY(const auto tokens, impl_->encode(prompt, options.suffix));
    auto stream = std::make_unique<AnswerStream::Impl>(impl_, options);
    KVCAST_CHECK(stream->begin(tokens, arrival));
    return AnswerStream(std::move(stream));
  });
}

Result<AnswerStream> Session::start(std::span<const int32_t> prompt,
                                    const GenerateOptions& options) {
  const Stopwatch arrival;
  if (!options.suffix.empty()) return fail(std::string(kFillInNeedsText));
  return without_exceptions([&]() -> Result<AnswerStream> {
    auto stream = std::make_unique<AnswerStream::Impl>(impl_, options);
    KVCAST_CHECK(stream->begin(prompt, arrival));
    return AnswerStream(std::move(stream));
  });
}

namespace {

Result<Completion> run(Result<AnswerStream> stream, const TextSink& sink) {
  if (!stream) return tl::unexpected(stream.error());
  bool wanted = true;
  while (wanted) {
    KVCAST_TRY(const auto piece, stream->next());
    if (!piece) return std::move(*stream).completion();
    wanted = piece->empty() || !sink || sink(*piece);
  }
  stream->end();
  Completion answer = std::move(*stream).completion();
  if (answer.finish_reason != FinishReason::kStopString) {
    answer.finish_reason = FinishReason::kCancelled;
  }
  return answer;
}

}  // namespace

Result<Completion> Session::generate(std::string_view prompt, const GenerateOptions& options,
                                     const TextSink& sink) {
  return run(start(prompt, options), sink);
}

Result<Completion> Session::generate(std::span<const int32_t> prompt,
                                     const GenerateOptions& options, const TextSink& sink) {
  return run(start(prompt, options), sink);
}

Result<int64_t> Session::refine(std::chrono::milliseconds budget, const std::stop_token& cancel) {
  if (impl_->answering != nullptr) impl_->answering->end();
  const Stopwatch watch;
  return without_exceptions([&]() -> Result<int64_t> {
    refine_alone(impl_->models(), impl_->sequence, impl_->workspace, cancel,
                 [&] { return watch.elapsed_ms() < static_cast<double>(budget.count()); });
    return inexact_rows(impl_->sequence);
  });
}

void Session::reset() {
  if (impl_->answering != nullptr) impl_->answering->end();
  impl_->sequence = Sequence(impl_->models());
}
const std::vector<int32_t>& Session::tokens() const { return impl_->sequence.tokens; }
int64_t Session::cache_bytes() const {
  return impl_->sequence.base.bytes() + impl_->sequence.auxiliary.bytes();
}

}  // namespace kvcast

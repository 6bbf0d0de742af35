#include "kvcast/session.h"

#include <fmt/format.h>

#include <new>
#include <utility>

#include "base/macros.h"
#include "base/stopwatch.h"
#include "prefill/refine.h"
#include "prefill/strategy.h"
#include "runtime/answer_step.h"
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

  std::shared_ptr<const Model> model;
  Sequence sequence;
  PrefillWorkspace workspace;
  std::vector<float> logits;  // [vocab_size]
};

namespace {

/// Gives the answer's text to the caller as it comes.
class AnswerSink {
 public:
  AnswerSink(const GenerateOptions& options, const TextSink& sink, std::string& text)
      : options_(options), sink_(sink), text_(text) {}

  void take(const AnswerStep& step) {
    if (step.kept) {
      text_.resize(static_cast<size_t>(step.kept->bytes));
      if (options_.on_revision) options_.on_revision(*step.kept);
    }
    emit(step.text);
  }
  void emit(const std::string& piece) {
    text_ += piece;
    if (!waits()) give(piece);
  }
  /// Nothing more is taken back.
  void finish() {
    if (waits()) give(text_);
  }
  [[nodiscard]] bool wanted() const { return wanted_; }

 private:
  [[nodiscard]] bool waits() const { return options_.revise && !options_.on_revision; }
  void give(const std::string& piece) {
    wanted_ = wanted_ && (piece.empty() || !sink_ || sink_(piece));
  }

  const GenerateOptions& options_;
  const TextSink& sink_;
  std::string& text_;
  bool wanted_ = true;
};

/// Samples and decodes until something ends the answer. On entry `state.logits` are those of the
/// prompt's last token; `arrival` has run since the prompt came.
Status decode(Session::Impl& state, const GenerateOptions& options, int64_t refine_rows,
              const Stopwatch& arrival, const TextSink& sink, Completion& answer) {
  AnswerWriter writer({.max_tokens = options.max_tokens,
                       .sampling = options.sampling,
                       .stop = options.stop,
                       .ignore_end_of_text = options.ignore_end_of_text},
                      state.model->impl().tokenizer.get());
  AnswerRefiner refiner(state.sequence, {.rows = refine_rows, .revise = options.revise});
  AnswerSink text(options, sink, answer.text);
  const Answering one[] = {{&state.sequence, &writer, refine_rows == 0 ? nullptr : &refiner}};
  int64_t steps = 0;
  Stopwatch since_first;
  KVCAST_CHECK(write_answers(state.models(), one, state.logits, state.workspace,
                             [&](size_t, const AnswerStep& step) {
                               if (steps++ == 0) {
                                 answer.timings.ttft_ms = arrival.elapsed_ms();
                                 since_first.restart();
                               }
                               text.take(step);
                               if (!text.wanted() || options.cancel.stop_requested()) {
                                 writer.end(FinishReason::kCancelled);
                               }
                             }));
  answer.timings.decode_tokens = steps - 1;
  answer.timings.decode_ms = since_first.elapsed_ms();
  if (refine_rows != 0) answer.timings.refinement = refiner.report();
  if (text.wanted()) text.emit(writer.flush());
  text.finish();
  answer.tokens = writer.tokens();
  answer.finish_reason = *writer.finished();
  if (!text.wanted() && answer.finish_reason != FinishReason::kStopString) {
    answer.finish_reason = FinishReason::kCancelled;
  }
  return {};
}

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

Status check_options(const GenerateOptions& options) {
  if (options.max_tokens < 1) {
    return fail(fmt::format("max_tokens: {}, expected at least 1", options.max_tokens));
  }
  return validate(options.sampling);
}

/// Prefill and decode of one turn whose tokens are given.
Result<Completion> answer_tokens(Session::Impl& state, std::span<const int32_t> prompt,
                                 const GenerateOptions& options, const Stopwatch& arrival,
                                 const TextSink& sink) {
  KVCAST_CHECK(check_options(options));
  const Models& models = state.models();
  KVCAST_TRY(auto strategy,
             PrefillStrategy::parse(options.prefill.empty() ? state.model->default_prefill()
                                                            : options.prefill));
  if (prompt.empty()) return fail("the prompt is empty: expected at least one token");
  Sequence& sequence = state.sequence;
  ConversationRollback rollback(sequence);
  sequence.tokens.insert(sequence.tokens.end(), prompt.begin(), prompt.end());
  if (auto ok = check_prompt(*strategy, models, sequence.tokens); !ok) {
    return fail(std::move(ok.error().message));
  }
  state.logits.resize(static_cast<size_t>(models.base->config().vocab_size));
  Completion answer;
  answer.timings.prompt_tokens = static_cast<int64_t>(prompt.size());
  answer.timings.tokenize_ms = arrival.elapsed_ms();
  reserve_answer(*strategy, models, sequence, static_cast<int64_t>(sequence.tokens.size()),
                 options.max_tokens);
  if (auto chosen = strategy->choose(models, sequence)) {
    answer.timings.estimated_ttft_ms = answer.timings.tokenize_ms + chosen->estimated_ms;
    strategy = std::move(chosen->strategy);
  }
  Sequence* const batch[] = {&sequence};
  const int64_t start = sequence.base.next_position();
  const PrefillReport report =
      strategy->prefill(models, batch, state.logits.data(), state.workspace, options.cancel);
  if (!report.stopped) observe_prefill(*strategy, models, start, report);
  answer.timings.prefill = strategy->spec();
  answer.timings.auxiliary_ms = report.auxiliary_ms;
  answer.timings.predictor_ms = report.predictor_ms;
  answer.timings.base_ms = report.base_ms;
  answer.timings.predicted_tokens = report.predicted_tokens;
  if (report.stopped) {
    answer.finish_reason = FinishReason::kCancelled;
    return answer;
  }
  KVCAST_CHECK(decode(state, options, strategy->refine_rows(), arrival, sink, answer));
  rollback.dismiss();
  return answer;
}

/// Keeps running out of memory from crossing the public edge.
template <typename Function>
Result<Completion> without_exceptions(const Function& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return fail("not enough memory for the KV cache and the activations of this prompt");
  }
}

}  // namespace

Session::Session(std::shared_ptr<const Model> model)
    : impl_(std::make_unique<Impl>(std::move(model))) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Result<Completion> Session::generate(std::string_view prompt, const GenerateOptions& options,
                                     const TextSink& sink) {
  const Stopwatch arrival;
  return without_exceptions([&]() -> Result<Completion> {
    const bool is_first = impl_->sequence.tokens.empty();
    KVCAST_TRY(const auto tokens, impl_->model->tokenize(prompt, is_first));
    return answer_tokens(*impl_, tokens, options, arrival, sink);
  });
}

Result<Completion> Session::generate(std::span<const int32_t> prompt,
                                     const GenerateOptions& options, const TextSink& sink) {
  const Stopwatch arrival;
  return without_exceptions([&] { return answer_tokens(*impl_, prompt, options, arrival, sink); });
}

Result<int64_t> Session::refine(std::chrono::milliseconds budget, const std::stop_token& cancel) {
  const Stopwatch watch;
  try {
    refine_alone(impl_->models(), impl_->sequence, impl_->workspace, cancel,
                 [&] { return watch.elapsed_ms() < static_cast<double>(budget.count()); });
  } catch (const std::bad_alloc&) {
    return fail("not enough memory for the activations of a refinement");
  }
  return inexact_rows(impl_->sequence);
}

void Session::reset() { impl_->sequence = Sequence(impl_->models()); }
const std::vector<int32_t>& Session::tokens() const { return impl_->sequence.tokens; }
int64_t Session::cache_bytes() const {
  return impl_->sequence.base.bytes() + impl_->sequence.auxiliary.bytes();
}

}  // namespace kvcast

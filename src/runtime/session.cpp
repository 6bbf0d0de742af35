#include "kvcast/session.h"

#include <fmt/format.h>

#include <new>
#include <optional>

#include "base/macros.h"
#include "base/stopwatch.h"
#include "prefill/strategy.h"
#include "runtime/model_impl.h"
#include "runtime/sampler.h"
#include "runtime/stop_matcher.h"

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

/// Turns sampled tokens into text for the caller, up to a stop string.
class AnswerText {
 public:
  AnswerText(const Tokenizer* tokenizer, const std::vector<std::string>& stop, const TextSink& sink,
             std::string& text)
      : matcher_(stop), sink_(sink), text_(text) {
    if (tokenizer) detokenizer_.emplace(*tokenizer);
  }

  /// False: the answer ends here (see finish_reason).
  bool push(int32_t token) {
    return !detokenizer_ || emit(matcher_.push(detokenizer_->push(token)));
  }

  /// Everything held back, once no more tokens come.
  void flush() {
    if (!detokenizer_ || ended_) return;
    if (emit(matcher_.push(detokenizer_->flush()))) emit(matcher_.flush());
  }

  [[nodiscard]] FinishReason finish_reason() const { return reason_; }

 private:
  bool emit(const std::string& piece) {
    text_ += piece;
    const bool wanted = piece.empty() || !sink_ || sink_(piece);
    if (matcher_.stopped()) {
      reason_ = FinishReason::kStopString;
    } else if (!wanted) {
      reason_ = FinishReason::kCancelled;
    }
    ended_ = matcher_.stopped() || !wanted;
    return !ended_;
  }

  std::optional<IncrementalDetokenizer> detokenizer_;
  StopMatcher matcher_;
  const TextSink& sink_;
  std::string& text_;
  bool ended_ = false;
  FinishReason reason_ = FinishReason::kMaxTokens;
};

/// Samples and decodes until something ends the answer. On entry `state.logits` are those of the
/// prompt's last token; `arrival` has run since the prompt came.
Status decode(Session::Impl& state, const GenerateOptions& options, const Stopwatch& arrival,
              const TextSink& sink, Completion& answer) {
  const Models& models = state.models();
  Sequence& sequence = state.sequence;
  const ModelConfig& config = sequence.answering_model(models).config();
  AnswerText text(state.model->impl().tokenizer.get(), options.stop, sink, answer.text);
  Sampler sampler(options.sampling);
  Sequence* const batch[] = {&sequence};
  Stopwatch since_first;
  while (true) {
    KVCAST_TRY(const int32_t token, sampler.sample(state.logits, sequence.tokens));
    sequence.tokens.push_back(token);  // pending until the next step, or the next turn
    if (answer.tokens.empty()) {
      answer.timings.ttft_ms = arrival.elapsed_ms();
      since_first.restart();
    }
    if (token == config.eos_token && !options.ignore_end_of_text) {
      answer.finish_reason = FinishReason::kEndOfText;
      break;
    }
    answer.tokens.push_back(token);
    if (!text.push(token)) {
      answer.finish_reason = text.finish_reason();
      break;
    }
    if (static_cast<int64_t>(answer.tokens.size()) >= options.max_tokens) break;
    if (static_cast<int64_t>(sequence.tokens.size()) > config.max_context_tokens) {
      answer.finish_reason = FinishReason::kContextFull;
      break;
    }
    if (options.cancel.stop_requested()) {
      answer.finish_reason = FinishReason::kCancelled;
      break;
    }
    decode_step(models, batch, state.logits.data(), state.workspace);
    ++answer.timings.decode_tokens;
  }
  answer.timings.decode_ms = since_first.elapsed_ms();
  text.flush();
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
  KVCAST_TRY(const auto strategy,
             PrefillStrategy::parse(options.prefill.empty() ? state.model->default_prefill()
                                                            : options.prefill));
  if (prompt.empty()) return fail("the prompt is empty: expected at least one token");
  Sequence& sequence = state.sequence;
  ConversationRollback rollback(sequence);
  sequence.tokens.insert(sequence.tokens.end(), prompt.begin(), prompt.end());
  KVCAST_CHECK(check_prefill(*strategy, models, sequence));
  state.logits.resize(static_cast<size_t>(models.base->config().vocab_size));
  Completion answer;
  answer.timings.prompt_tokens = static_cast<int64_t>(prompt.size());
  answer.timings.tokenize_ms = arrival.elapsed_ms();
  reserve_answer(*strategy, models, sequence, static_cast<int64_t>(sequence.tokens.size()),
                 options.max_tokens);
  Sequence* const batch[] = {&sequence};
  const PrefillReport report =
      strategy->prefill(models, batch, state.logits.data(), state.workspace, options.cancel);
  answer.timings.auxiliary_ms = report.auxiliary_ms;
  answer.timings.predictor_ms = report.predictor_ms;
  answer.timings.base_ms = report.base_ms;
  answer.timings.predicted_tokens = report.predicted_tokens;
  if (report.stopped) {
    answer.finish_reason = FinishReason::kCancelled;
    return answer;
  }
  KVCAST_CHECK(decode(state, options, arrival, sink, answer));
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

void Session::reset() { impl_->sequence = Sequence(impl_->models()); }
const std::vector<int32_t>& Session::tokens() const { return impl_->sequence.tokens; }
int64_t Session::cache_bytes() const {
  return impl_->sequence.base.bytes() + impl_->sequence.auxiliary.bytes();
}

}  // namespace kvcast

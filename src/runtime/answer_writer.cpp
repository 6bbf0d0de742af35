#include "runtime/answer_writer.h"

#include <algorithm>
#include <utility>

#include "base/macros.h"

namespace kvcast {

AnswerWriter::AnswerWriter(AnswerRules rules, const Tokenizer* tokenizer)
    : rules_(std::move(rules)),
      tokenizer_(tokenizer),
      sampler_(rules_.sampling),
      matcher_(rules_.stop) {
  if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer);
}

Result<AnswerStep> AnswerWriter::take(std::span<const float> logits, Sequence& sequence,
                                      const ModelConfig& model) {
  logits = under_rules(std::ssize(tokens_), logits, model, logits_);
  KVCAST_TRY(const int32_t token, sampler_.sample(logits, sequence.tokens));
  return put(token, sequence, model);
}

std::span<const float> AnswerWriter::under_rules(int64_t index, std::span<const float> logits,
                                                 const ModelConfig& model,
                                                 std::vector<float>& scratch) const {
  const std::span<const int64_t> end_tokens =
      rules_.ignore_end_of_text ? std::span<const int64_t>() : model.eos_tokens;
  const auto before = std::span(tokens_).first(static_cast<size_t>(index));
  return apply_rules(rules_.tokens, before, end_tokens, logits, scratch);
}

Result<std::optional<int32_t>> AnswerWriter::verify(int64_t index, std::span<const float> exact,
                                                    std::span<const float> drafted,
                                                    std::span<const int32_t> before, int32_t token,
                                                    const ModelConfig& model) {
  exact = under_rules(index, exact, model, logits_);
  if (!is_greedy()) drafted = under_rules(index, drafted, model, drafted_);
  return sampler_.verify(exact, drafted, before, token);
}

AnswerStep AnswerWriter::revise(int64_t kept, int32_t token, Sequence& sequence,
                                const ModelConfig& model) {
  const auto first = static_cast<int64_t>(sequence.tokens.size()) - taken_;
  sequence.tokens.resize(static_cast<size_t>(first + kept));
  taken_ = kept;
  tokens_.resize(static_cast<size_t>(kept));
  finished_.reset();
  matcher_ = StopMatcher(rules_.stop);
  KeptAnswer stays{.tokens = kept};
  if (detokenizer_) {
    detokenizer_.emplace(*tokenizer_);
    for (const int32_t before : tokens_) {
      const std::string text = matcher_.push(detokenizer_->push(before));
      stays.bytes += std::ssize(text);
      stays.characters += std::ranges::count_if(
          text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80; });
    }
  }
  AnswerStep step = put(token, sequence, model);
  step.kept = stays;
  return step;
}

AnswerStep AnswerWriter::put(int32_t token, Sequence& sequence, const ModelConfig& model) {
  AnswerStep step;
  step.token = token;
  ++taken_;
  sequence.tokens.push_back(token);
  const auto& stop_tokens = rules_.tokens.stop_tokens;
  const bool ends_text = model.ends_text(token) && !rules_.ignore_end_of_text;
  if (ends_text || std::ranges::find(stop_tokens, token) != stop_tokens.end()) {
    step.end_of_text = true;
    finished_ = FinishReason::kEndOfText;
    return step;
  }
  tokens_.push_back(token);
  if (detokenizer_) step.text = matcher_.push(detokenizer_->push(token));
  if (matcher_.stopped()) {
    finished_ = FinishReason::kStopString;
  } else if (std::ssize(tokens_) >= rules_.max_tokens) {
    finished_ = FinishReason::kMaxTokens;
  } else if (std::ssize(sequence.tokens) >= model.max_context_tokens) {
    finished_ = FinishReason::kContextFull;
  }
  return step;
}

int64_t AnswerWriter::tokens_left(const Sequence& sequence, const ModelConfig& model) const {
  return std::min(rules_.max_tokens - std::ssize(tokens_),
                  model.max_context_tokens - std::ssize(sequence.tokens));
}

void AnswerWriter::end(FinishReason reason) {
  if (!finished_) finished_ = reason;
}

std::string AnswerWriter::flush() {
  if (!detokenizer_ || matcher_.stopped()) return {};
  std::string text = matcher_.push(detokenizer_->flush());
  if (matcher_.stopped()) {
    finished_ = FinishReason::kStopString;
  } else {
    text += matcher_.flush();
  }
  return text;
}

}  // namespace kvcast

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
  KVCAST_TRY(const int32_t token, sampler_.sample(logits, sequence.tokens));
  return put(token, sequence, model);
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
  if (model.ends_text(token) && !rules_.ignore_end_of_text) {
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
  } else if (std::ssize(sequence.tokens) > model.max_context_tokens) {
    finished_ = FinishReason::kContextFull;
  }
  return step;
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

#include "runtime/answer_writer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/macros.h"

namespace kvcast {

AnswerWriter::AnswerWriter(AnswerRules rules, const Tokenizer* tokenizer)
    : rules_(std::move(rules)), sampler_(rules_.sampling), matcher_(rules_.stop) {
  if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer);
}

Result<AnswerStep> AnswerWriter::take(std::span<const float> logits, Sequence& sequence,
                                      const ModelConfig& model) {
  AnswerStep step;
  const std::span<const int64_t> end_tokens =
      rules_.ignore_end_of_text ? std::span<const int64_t>() : model.eos_tokens;
  logits = apply_rules(rules_.tokens, tokens_, end_tokens, logits, logits_);
  KVCAST_TRY(step.token, sampler_.sample(logits, sequence.tokens));
  sequence.tokens.push_back(step.token);
  const auto& stop_tokens = rules_.tokens.stop_tokens;
  const bool ends_text = model.ends_text(step.token) && !rules_.ignore_end_of_text;
  if (ends_text || std::ranges::find(stop_tokens, step.token) != stop_tokens.end()) {
    step.end_of_text = true;
    finished_ = FinishReason::kEndOfText;
    return step;
  }
  tokens_.push_back(step.token);
  if (detokenizer_) step.text = matcher_.push(detokenizer_->push(step.token));
  if (matcher_.stopped()) {
    finished_ = FinishReason::kStopString;
  } else if (std::ssize(tokens_) >= rules_.max_tokens) {
    finished_ = FinishReason::kMaxTokens;
  } else if (std::ssize(sequence.tokens) >= model.max_context_tokens) {
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

AnswerLoop::AnswerLoop(const Models& models, std::span<const Answering> answers,
                       std::vector<float> logits, PrefillWorkspace& workspace)
    : models_(models),
      answers_(answers.begin(), answers.end()),
      writing_(answers.size()),
      logits_(std::move(logits)),
      workspace_(workspace) {
  std::iota(writing_.begin(), writing_.end(), size_t{0});
}

Result<bool> AnswerLoop::step(const OnStep& on_step) {
  std::erase_if(writing_, [&](size_t i) { return answers_[i].writer->finished().has_value(); });
  if (writing_.empty()) return false;
  if (!logits_are_new_) {
    std::vector<Sequence*> sequences;
    for (const size_t i : writing_) sequences.push_back(answers_[i].sequence);
    decode_step(models_, sequences, logits_.data(), workspace_);
  }
  logits_are_new_ = false;
  const ModelConfig& model = answers_.front().sequence->answering_model(models_).config();
  const auto vocab = static_cast<size_t>(model.vocab_size);
  Result<bool> result = true;
  std::vector<size_t> failed;
  for (size_t row = 0; row < writing_.size(); ++row) {
    const auto& [sequence, writer] = answers_[writing_[row]];
    const auto step =
        writer->take(std::span(logits_).subspan(row * vocab, vocab), *sequence, model);
    if (step) {
      on_step(writing_[row], *step);
    } else {
      result = tl::unexpected(step.error());
      failed.push_back(writing_[row]);
    }
  }
  std::erase_if(writing_, [&](size_t i) { return std::ranges::find(failed, i) != failed.end(); });
  return result;
}

Status write_answers(const Models& models, std::span<const Answering> answers,
                     std::vector<float> logits, PrefillWorkspace& workspace,
                     const OnStep& on_step) {
  AnswerLoop loop(models, answers, std::move(logits), workspace);
  Status status;
  while (true) {
    const Result<bool> more = loop.step(on_step);
    if (!more) {
      status = tl::unexpected(more.error());
    } else if (!*more) {
      return status;
    }
  }
}

}  // namespace kvcast

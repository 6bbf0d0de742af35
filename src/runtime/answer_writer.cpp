#include "runtime/answer_writer.h"

#include <algorithm>
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

Status write_answers(const Models& models, std::span<const Answering> answers,
                     std::vector<float> logits, PrefillWorkspace& workspace,
                     const std::function<void(size_t answer, const AnswerStep&)>& on_step) {
  const ModelConfig& model = answers.front().sequence->answering_model(models).config();
  const auto vocab = static_cast<size_t>(model.vocab_size);
  std::vector<size_t> writing(answers.size());  // answer of each row of logits
  for (size_t i = 0; i < writing.size(); ++i) writing[i] = i;
  Status status;
  while (true) {
    std::vector<size_t> going_on;
    std::vector<Sequence*> sequences;
    for (size_t row = 0; row < writing.size(); ++row) {
      const auto& [sequence, writer] = answers[writing[row]];
      const auto step =
          writer->take(std::span(logits).subspan(row * vocab, vocab), *sequence, model);
      if (!step) {
        status = tl::unexpected(step.error());
        continue;
      }
      on_step(writing[row], *step);
      if (writer->finished()) continue;
      going_on.push_back(writing[row]);
      sequences.push_back(sequence);
    }
    writing = std::move(going_on);
    if (writing.empty()) return status;
    decode_step(models, sequences, logits.data(), workspace);
  }
}

}  // namespace kvcast

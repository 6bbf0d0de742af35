#include "runtime/answer_refiner.h"

#include <algorithm>
#include <cmath>

#include "base/macros.h"
#include "runtime/token_score.h"

namespace kvcast {

AnswerRefiner::AnswerRefiner(Sequence& sequence, const RefineOptions& options)
    : sequence_(&sequence), options_(options), answer_begin_(std::ssize(sequence.tokens)) {
  note_exact();
}

void AnswerRefiner::note_exact() {
  if (report_.exact_after_tokens >= 0 || inexact_rows(*sequence_) > 0) return;
  report_.exact_after_tokens = std::ssize(sequence_->tokens) - answer_begin_;
}

RefineBlock AnswerRefiner::block(int64_t most) const {
  const int64_t begin = sequence_->base.exact_rows();
  const int64_t rows = rows_to_refine(*sequence_, most);
  // The row before an answer token predicts it.
  const int64_t first_output = std::max(begin, answer_begin_ - 1);
  return {.sequence = sequence_,
          .rows = rows,
          .outputs = std::max<int64_t>(0, begin + rows - first_output)};
}

void AnswerRefiner::chosen(std::span<const float> logits, AnswerWriter& writer) {
  if (inexact_rows(*sequence_) == 0) {  // its choice was exact's
    ++report_.compared_tokens;
    ++report_.agreed_tokens;
    return;
  }
  Draft& draft = drafts_.emplace_back();
  if (writer.is_greedy()) return;
  draft.log_probability = log_probability(logits, sequence_->tokens.back());
  if (options_.revise) draft.logits.assign(logits.begin(), logits.end());
}

Result<std::optional<AnswerRefiner::Revision>> AnswerRefiner::refined(const RefineBlock& block,
                                                                      const float* logits,
                                                                      AnswerWriter& writer,
                                                                      const ModelConfig& model) {
  report_.refined_rows += block.rows;
  const auto vocab = static_cast<size_t>(model.vocab_size);
  const int64_t first = answer_begin_ - 1 + verified_;  // row that predicts the next token
  for (int64_t position = first; position < first + block.outputs; ++position) {
    const std::span<const float> exact(logits + static_cast<size_t>(position - first) * vocab,
                                       vocab);
    const auto before = std::span(sequence_->tokens).first(static_cast<size_t>(position) + 1);
    const int32_t token = sequence_->tokens[before.size()];
    std::optional<int32_t> other;
    if (writer.is_greedy() || options_.revise) {
      KVCAST_TRY(other,
                 writer.verify(verified_, exact, drafts_.front().logits, before, token, model));
    }
    if (writer.is_greedy()) {
      ++report_.compared_tokens;
      report_.agreed_tokens += other ? 0 : 1;
    } else {
      compare(exact, token);
    }
    if (other && options_.revise) {
      drafts_.clear();
      const int64_t kept = verified_;
      report_.revised_tokens += std::ssize(sequence_->tokens) - answer_begin_ - kept;
      report_.exact_after_tokens = kept;
      sequence_->base.truncate(position + 1);
      sequence_->auxiliary.truncate(position + 1);
      return Revision{writer.revise(kept, *other, *sequence_, model), exact};
    }
    drafts_.pop_front();
    ++verified_;
  }
  note_exact();
  return std::nullopt;
}

void AnswerRefiner::compare(std::span<const float> exact, int32_t token) {
  const double log_ratio = log_probability(exact, token) - drafts_.front().log_probability;
  ++report_.compared_tokens;
  report_.agreed_tokens += std::min(1.0, std::exp(log_ratio));
  report_.log_ratio_sum += log_ratio;
}

}  // namespace kvcast

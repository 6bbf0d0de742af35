// A decode step of several answers, with drafts and refinement beside it.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "runtime/answer_refiner.h"
#include "runtime/answer_writer.h"
#include "runtime/drafter.h"

namespace kvcast {

/// An answer and the sequence that it continues.
struct Answering {
  Sequence* sequence = nullptr;
  AnswerWriter* writer = nullptr;
  AnswerRefiner* refiner = nullptr;  ///< null: nothing is refined
  Drafter* drafter = nullptr;        ///< null: no drafts
  bool may_refine = true;            ///< in this step

  /// Nothing more is written, and nothing will be taken back.
  [[nodiscard]] bool over() const {
    const bool revisable = refiner != nullptr && refiner->may_revise();
    return writer->finished() && (!revisable || *writer->finished() == FinishReason::kCancelled);
  }
};

struct AnswerEvents {
  /// The logits that the answer's next token is to be chosen from. Where a draft came true, the
  /// next ones follow at once.
  std::function<void(size_t answer, std::span<const float> logits)> on_logits;
  std::function<void(size_t answer, const AnswerRefiner::Revision&)> on_revised;
};

/// Each answer whose writer is not through runs its pending tokens and, behind them, what its
/// drafter or an auxiliary guesses; beside that at most `most_rows` rows are refined. As many
/// guesses count as the writer chooses the same tokens, from the logits that it would have had
/// without them: answers do not change by them. All sequences have the same answering model. An
/// error: no token can be chosen for one of the answers.
Status step_answers(const Models& models, std::span<const Answering> answers, int64_t most_rows,
                    AlignedBuffer<float>& logits, PrefillWorkspace& workspace,
                    const AnswerEvents& events);

/// Called with each token, by the index of its answer.
using OnStep = std::function<void(size_t answer, const AnswerStep&)>;

/// Answers that are decoded together, a token at a time. Not thread-safe; what it is given must
/// outlive it.
class AnswerLoop {
 public:
  /// `logits` [answers, vocab_size] are those after the prompts; all sequences have the same
  /// answering model.
  AnswerLoop(const Models& models, std::span<const Answering> answers, std::vector<float> logits,
             PrefillWorkspace& workspace);

  /// One more token or, with drafts, several, of every answer that is not over, and what refinement
  /// says; false: all were.
  /// An error: no token could be chosen for one of them, and that one is not over; the others go
  /// on.
  Result<bool> step(const OnStep& on_step);

 private:
  void take(size_t answer, std::span<const float> logits, const OnStep& on_step);

  const Models& models_;
  std::vector<Answering> answers_;
  std::vector<size_t> writing_;  // those that are not over
  std::vector<float> logits_;    // after the prompts, until they have been used
  AlignedBuffer<float> rows_;
  PrefillWorkspace& workspace_;
  std::vector<size_t> failed_;  // in this step
  Status status_;
};

/// Decodes until every answer is over. An error: that of one of them; the others are over.
Status write_answers(const Models& models, std::span<const Answering> answers,
                     std::vector<float> logits, PrefillWorkspace& workspace, const OnStep& on_step);

}  // namespace kvcast

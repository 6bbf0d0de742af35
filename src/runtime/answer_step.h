// A decode step of several answers, with refinement beside it.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "runtime/answer_refiner.h"
#include "runtime/answer_writer.h"

namespace kvcast {

/// An answer and the sequence that it continues.
struct Answering {
  Sequence* sequence = nullptr;
  AnswerWriter* writer = nullptr;
  AnswerRefiner* refiner = nullptr;  ///< null: nothing is refined
  bool may_refine = true;            ///< in this step

  /// Nothing more is written, and nothing will be taken back.
  [[nodiscard]] bool over() const {
    const bool revisable = refiner != nullptr && refiner->may_revise();
    return writer->finished() && (!revisable || *writer->finished() == FinishReason::kCancelled);
  }
};

struct AnswerEvents {
  /// The logits that the answer's next token is to be chosen from.
  std::function<void(size_t answer, std::span<const float> logits)> on_logits;
  std::function<void(size_t answer, const AnswerRefiner::Revision&)> on_revised;
};

/// Each answer whose writer is not through runs its pending tokens, and beside that at most
/// `most_rows` rows are refined. All sequences have the same answering model. An error: no token
/// can be chosen for one of the answers.
Status step_answers(const Models& models, std::span<const Answering> answers, int64_t most_rows,
                    AlignedBuffer<float>& logits, PrefillWorkspace& workspace,
                    const AnswerEvents& events);

/// Decodes until every answer is over. `logits` [answers, vocab_size] are those after the prompts.
/// `on_step` hears of each token, by the index of its answer. An error: no token could be chosen
/// for one of them, and it is not over; the others are.
Status write_answers(const Models& models, std::span<const Answering> answers,
                     std::span<const float> logits, PrefillWorkspace& workspace,
                     const std::function<void(size_t answer, const AnswerStep&)>& on_step);

}  // namespace kvcast

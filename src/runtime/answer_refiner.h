// Refinement of one answer's sequence, and what the exact logits say about the tokens it has.
#pragma once

#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "kvcast/session.h"
#include "prefill/refine.h"
#include "runtime/answer_writer.h"

namespace kvcast {

struct RefineOptions {
  int64_t rows = 0;     ///< PrefillStrategy::refine_rows
  bool revise = false;  ///< tokens that exact would not have chosen are taken back
};

/// First the prompt is refined, then the answer so far. Rows of the answer give exact logits for
/// tokens that are there already: they are compared, and taken back if that is asked for. Not
/// thread-safe.
class AnswerRefiner {
 public:
  /// Made after prefill, before the first token. `sequence` must outlive it.
  AnswerRefiner(Sequence& sequence, const RefineOptions& options);

  [[nodiscard]] const RefineOptions& options() const { return options_; }
  /// The answer may change yet, even if its writer is through.
  [[nodiscard]] bool may_revise() const { return options_.revise && inexact_rows(*sequence_) > 0; }
  /// The next rows, at most `most`.
  [[nodiscard]] RefineBlock block(int64_t most) const;

  /// `writer` has just chosen a token from these logits.
  void chosen(std::span<const float> logits, AnswerWriter& writer);

  /// A step that takes tokens back, and the logits [vocab_size] that it was chosen from.
  struct Revision {
    AnswerStep step;
    std::span<const float> logits;
  };
  /// What block() gave has been refined, with these logits [block.outputs, vocab_size]. Returns a
  /// revision if a token was taken back, and with it all that came after it: the answer goes on
  /// from there, exact. An error: no token can be chosen.
  Result<std::optional<Revision>> refined(const RefineBlock& block, const float* logits,
                                          AnswerWriter& writer, const ModelConfig& model);

  [[nodiscard]] const Refinement& report() const { return report_; }

 private:
  /// A token that was chosen over forecast rows.
  struct Draft {
    double log_probability = 0;  // sampling only
    std::vector<float> logits;   // sampling with revision only
  };
  void note_exact();
  void compare(std::span<const float> exact, int32_t token);

  Sequence* sequence_;
  RefineOptions options_;
  int64_t answer_begin_;
  int64_t verified_ = 0;      // answer tokens whose exact logits have been seen
  std::deque<Draft> drafts_;  // of those after them, up to what was chosen exactly
  Refinement report_;
};

}  // namespace kvcast

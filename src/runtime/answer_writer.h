// One answer being written: tokens chosen from logits, turned into text, up to what ends it.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvcast/session.h"
#include "prefill/token_runs.h"
#include "runtime/sampler.h"
#include "runtime/stop_matcher.h"
#include "runtime/token_rules.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

/// How an answer's tokens are chosen, and what ends it.
struct AnswerRules {
  int64_t max_tokens = 16;
  SamplingOptions sampling;
  std::vector<std::string> stop;
  bool ignore_end_of_text = false;
  TokenRules tokens = {};
};

/// What one token added to an answer.
struct AnswerStep {
  int32_t token = 0;
  bool end_of_text = false;  ///< the token is the end-of-text or a stop token: it ends the answer
  std::string text;          ///< certain new text, whole UTF-8; may be empty
};

/// Not thread-safe.
class AnswerWriter {
 public:
  /// Without a tokenizer (null) there is no text.
  AnswerWriter(AnswerRules rules, const Tokenizer* tokenizer);

  /// Chooses the next token of `sequence`, which `model` answers, and appends it there: pending
  /// until the next step, or the next turn. An error: no token can be chosen.
  Result<AnswerStep> take(std::span<const float> logits, Sequence& sequence,
                          const ModelConfig& model);

  /// Ends the answer for a reason from outside, unless it is over.
  void end(FinishReason reason);

  /// Set once the answer is over.
  [[nodiscard]] const std::optional<FinishReason>& finished() const { return finished_; }

  /// Text that was held back, once the answer is over. A stop string in it becomes the reason.
  std::string flush();

  /// The token that ended the answer is not among them.
  [[nodiscard]] const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  AnswerRules rules_;
  Sampler sampler_;
  std::optional<IncrementalDetokenizer> detokenizer_;
  StopMatcher matcher_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;  // under the rules
  std::optional<FinishReason> finished_;
};

/// An answer and the sequence that it continues.
struct Answering {
  Sequence* sequence = nullptr;
  AnswerWriter* writer = nullptr;
};

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

  /// One more token of every answer that is not over; false: all were. An error: no token could be
  /// chosen for one of them, and that one is not over; the others go on.
  Result<bool> step(const OnStep& on_step);

 private:
  const Models& models_;
  std::vector<Answering> answers_;
  std::vector<size_t> writing_;  // answer of each row of logits
  std::vector<float> logits_;    // [writing, vocab_size]
  PrefillWorkspace& workspace_;
  bool logits_are_new_ = true;
};

/// Decodes until every answer is over. An error: that of one of them; the others are over.
Status write_answers(const Models& models, std::span<const Answering> answers,
                     std::vector<float> logits, PrefillWorkspace& workspace, const OnStep& on_step);

}  // namespace kvcast

// One answer being written: tokens chosen from logits, turned into text, up to what ends it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kvcast/session.h"
#include "prefill/sequence.h"
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
  std::optional<KeptAnswer> kept = {};  ///< set where tokens were taken back
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

  /// Takes back all tokens but the first `kept`, of `sequence` too, and goes on with `token`.
  AnswerStep revise(int64_t kept, int32_t token, Sequence& sequence, const ModelConfig& model);

  /// Ends the answer for a reason from outside, unless it is over.
  void end(FinishReason reason);

  /// Set once the answer is over.
  [[nodiscard]] const std::optional<FinishReason>& finished() const { return finished_; }

  /// How many tokens the answer may get yet, `sequence` being as long as it is.
  [[nodiscard]] int64_t tokens_left(const Sequence& sequence, const ModelConfig& model) const;

  /// Text that was held back, once the answer is over. A stop string in it becomes the reason.
  std::string flush();

  /// The token that ended the answer is not among them.
  [[nodiscard]] const std::vector<int32_t>& tokens() const { return tokens_; }

  /// Sampler::verify of the answer's token `index`, under the rules; `before` are all tokens of the
  /// sequence before it.
  Result<std::optional<int32_t>> verify(int64_t index, std::span<const float> exact,
                                        std::span<const float> drafted,
                                        std::span<const int32_t> before, int32_t token,
                                        const ModelConfig& model);
  [[nodiscard]] bool is_greedy() const { return sampler_.is_greedy(); }

 private:
  /// The logits of the answer's token `index` under the rules, in `scratch` if they differ.
  std::span<const float> under_rules(int64_t index, std::span<const float> logits,
                                     const ModelConfig& model, std::vector<float>& scratch) const;
  AnswerStep put(int32_t token, Sequence& sequence, const ModelConfig& model);

  AnswerRules rules_;
  const Tokenizer* tokenizer_;
  Sampler sampler_;
  std::optional<IncrementalDetokenizer> detokenizer_;
  StopMatcher matcher_;
  std::vector<int32_t> tokens_;
  int64_t taken_ = 0;                    // tokens_, and the token that ended the answer
  std::vector<float> logits_, drafted_;  // under the rules
  std::optional<FinishReason> finished_;
};

}  // namespace kvcast

// Prompts through a model many at a time: prefill by a strategy, then score texts or write answers.
// Everything that tasks need of the models.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvcast/sampling.h"
#include "prefill/strategy.h"
#include "runtime/prefix_pool.h"
#include "runtime/token_score.h"
#include "tokenizer/tokenizer.h"

namespace kvcast {

using Tokens = std::vector<int32_t>;

/// A strategy as evaluation runs it.
struct EvalStrategy {
  enum class Scoring {
    kMixed,      ///< the answering model reads what is scored, as it reads its own answer
    kPredicted,  ///< K/V of what is scored are predicted too (method §4), as the paper scored
  };
  std::string spec;  ///< canonical
  std::unique_ptr<PrefillStrategy> prefill;
  Scoring scoring = Scoring::kMixed;
  /// The control in which the forecast is of another prompt: everything but the last `tail` tokens.
  bool wrong_cache = false;
  int64_t tail = 1;

  /// All that PrefillStrategy::parse knows, and `wrong-cache`, `wrong-cache:tail=16`.
  static Result<EvalStrategy> parse(std::string_view spec);
};

/// A prompt, and what the control `wrong-cache` reads in its place.
struct EvalPrompt {
  const Tokens* tokens = nullptr;
  const Tokens* other = nullptr;
};

/// Prompts after prefill: sequences whose caches hold them, and [sequences, vocab_size] logits
/// after each one's last token.
struct PrefilledBatch {
  std::vector<Sequence> sequences;
  std::vector<float> logits;
  int64_t refine_rows = 0;  ///< PrefillStrategy::refine_rows: what answer() refines beside a step
};

struct AnswerOptions {
  int64_t max_tokens = 32;
  std::vector<std::string> stop;
  SamplingOptions sampling;
  std::vector<uint64_t> seeds;  ///< one per answer, in place of sampling.seed; empty: all alike
  bool ignore_end_of_text = false;
};

class Evaluator {
 public:
  /// Keeps up to `max_prefix_bytes` of K/V of beginnings that prompts share. `drafts`:
  /// GenerateOptions::drafts, of answers.
  Evaluator(const Models& models, const Tokenizer& tokenizer, int64_t max_prefix_bytes,
            int64_t drafts = kDraftsAuto);

  [[nodiscard]] const Models& models() const { return models_; }
  [[nodiscard]] const Tokenizer& tokenizer() const { return tokenizer_; }
  [[nodiscard]] int64_t vocab_size() const { return models_.base->config().vocab_size; }

  /// Prefills the prompts together. The first `shared_tokens` tokens are the same in all prompts of
  /// the task: strategies whose caches allow it run them once.
  PrefilledBatch prefill(const EvalStrategy& strategy, std::span<const EvalPrompt> prompts,
                         int64_t shared_tokens = 0);

  /// Log-probabilities (nats) of whole continuations: out[s][k] of continuations[s][k], each at
  /// least one token, after prompt s. The batch is as before afterwards.
  using Continuations = std::vector<std::vector<Tokens>>;  // [sequences][any number]
  using LogProbabilities = std::vector<std::vector<double>>;
  LogProbabilities score(PrefilledBatch& batch, const Continuations& continuations);

  /// The same with predicted K/V everywhere (EvalStrategy::Scoring::kPredicted).
  LogProbabilities score_predicted(std::span<const EvalPrompt> prompts,
                                   const Continuations& continuations);

  /// Logits [vocab_size] that predict each token of one continuation per sequence; `token` is the
  /// index within it. Each is handed out once, in any order, by several threads at a time.
  using LogitsSink = std::function<void(size_t sequence, size_t token, std::span<const float>)>;
  void continuation_logits(PrefilledBatch& batch, std::span<const Tokens> continuations,
                           const LogitsSink& sink);

  /// Answers to the prompts, up to a stop string, the end of text or max_tokens. The batch is
  /// spent.
  struct Answer {
    std::string text;
    Tokens tokens;
  };
  std::vector<Answer> answer(PrefilledBatch batch, const AnswerOptions& options);

  /// `copies` sequences of each, next to one another.
  PrefilledBatch replicate(const PrefilledBatch& batch, int64_t copies);

 private:
  /// Runs the tokens behind the caches and hands out the logits of each row.
  void run_scored_rows(std::span<Sequence* const> sequences, std::span<const int64_t> ends,
                       const std::function<void(int64_t row, std::span<const float>)>& sink);

  const Models& models_;
  const Tokenizer& tokenizer_;
  int64_t drafts_;
  PrefixPool prefixes_;
  PrefillWorkspace workspace_;
  AlignedBuffer<float> logits_;  // [block of rows, vocab_size]
};

/// Sum over the vocabulary of p * log(p / q), p = softmax(p_logits), q likewise.
double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits);

/// Token ids of `context` and of `continuation` behind it as LM Evaluation Harness splits them: the
/// two are encoded together, trailing spaces of the context count as the continuation's.
struct TokenPair {
  Tokens context, continuation;
};
TokenPair encode_pair(const Tokenizer& tokenizer, std::string context, std::string continuation,
                      bool add_bos);

}  // namespace kvcast

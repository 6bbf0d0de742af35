// Prefill strategies: from prompt tokens to a filled cache and the logits of the last token.
// Afterwards decoding is the same for all. One file per strategy.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "kvcast/result.h"
#include "model/flops.h"
#include "prefill/sequence.h"

namespace kvcast {

/// Scratch memory for prefill and decode, reused between calls.
struct PrefillWorkspace {
  Workspace base, auxiliary;
  PredictorWorkspace predictor;
};

/// Where the time of one prefill went, and how much of the prompt was forecast.
struct PrefillReport {
  double auxiliary_ms = 0;
  double predictor_ms = 0;
  /// Under kv-prediction what is left of the base's run when the auxiliary is done (TailRun).
  double base_ms = 0;
  int64_t predicted_tokens = 0;  ///< rows of the base's cache that the predictor filled
  int64_t computed_tokens = 0;   ///< rows that the answering model computed itself
  bool stopped = false;          ///< the stop token fired: caches are as before, no logits
};

/// How far PrefillStrategy::advance has come.
enum class PrefillState {
  kMore,     ///< call advance again
  kLastRun,  ///< only a decode_step is left; its pending tokens and the rows run now are max_rows
  kDone,     ///< the logits of the last token are written
};

/// A strategy is immutable and may be used by many threads at once.
class PrefillStrategy {
 public:
  /// `exact`, `kv-prediction`, `kv-prediction:tail=16`, `auxiliary`, `random:0.5`, `static:0.5`,
  /// `lazy:0.75-0.25`, `zero-cache`, `zero-cache:tail=16`. Errors list what is known.
  static Result<std::unique_ptr<PrefillStrategy>> parse(std::string_view spec);
  virtual ~PrefillStrategy() = default;

  /// The canonical spec string.
  [[nodiscard]] virtual std::string spec() const = 0;
  [[nodiscard]] virtual bool needs_bundle() const = 0;

  /// What a prompt on an empty cache costs, by an exact count.
  [[nodiscard]] virtual PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const = 0;
  /// FLOPs of `exact` over this strategy's as the paper's tables approximate them (method §6).
  [[nodiscard]] virtual double paper_reduction(const ModelPair& models,
                                               int64_t prompt_tokens) const = 0;

  /// Runs everything pending of each sequence (at least one token each; see check_prefill) and
  /// writes the next-token logits of each, [sequences, vocab_size].
  virtual PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences,
                                float* logits, PrefillWorkspace& workspace,
                                const std::stop_token& stop) const = 0;

  /// Caches of strategies of one family agree row by row where their tokens agree, so that a prompt
  /// may start from an earlier one's rows without changing its answer. Empty: never.
  [[nodiscard]] virtual std::string_view cache_family() const { return {}; }
  /// How many leading rows of a prompt's cache may come from the family's earlier prompts.
  [[nodiscard]] virtual int64_t reusable_rows(int64_t /*prompt_tokens*/) const { return 0; }

  /// Prefill in pieces, for a scheduler that keeps other sequences flowing meanwhile: runs at most
  /// `max_rows` more rows of `sequence` and adds to `report`. Ends in the same cache as prefill().
  /// If the stop token fired
  /// (report.stopped) the sequence must be discarded. A strategy
  /// that cannot stop half-way does everything in the first call (this default).
  virtual PrefillState advance(const Models& models, Sequence& sequence, int64_t max_rows,
                               float* logits, PrefillWorkspace& workspace,
                               const std::stop_token& stop, PrefillReport& report) const;
};

/// What a caller must make sure of before prefill: the strategy fits the model, there is something
/// to run, token ids are in range, the context is not exceeded. Errors say which and by how much.
Status check_prefill(const PrefillStrategy& strategy, const Models& models,
                     const Sequence& sequence);

/// Makes room for a prompt and its answer, as far as the context goes, in the cache that is
/// answered from after prefill by `strategy`. Without it the cache grows by halves, which copies it
/// and holds it twice for a moment.
void reserve_answer(const PrefillStrategy& strategy, const Models& models, Sequence& sequence,
                    int64_t prompt_tokens, int64_t answer_tokens);

/// One decode step: the answering model of each sequence runs its pending tokens; logits
/// [sequences, vocab_size]. All sequences must have the same answering model.
void decode_step(const Models& models, std::span<Sequence* const> sequences, float* logits,
                 PrefillWorkspace& workspace);

std::unique_ptr<PrefillStrategy> make_exact_strategy();
std::unique_ptr<PrefillStrategy> make_auxiliary_strategy();
/// `tail` >= 1: how many of the last prompt tokens the base runs itself; 1 is the paper.
std::unique_ptr<PrefillStrategy> make_kv_prediction_strategy(int64_t tail);
/// Baselines of the paper (method §8) that drop prompt tokens; fractions in (0, 1] of the prompt.
std::unique_ptr<PrefillStrategy> make_random_strategy(double keep);
std::unique_ptr<PrefillStrategy> make_static_strategy(double keep);
std::unique_ptr<PrefillStrategy> make_lazy_strategy(double keep_first, double keep_last);
/// The control in which nothing stands where the forecast would.
std::unique_ptr<PrefillStrategy> make_zero_cache_strategy(int64_t tail);

/// Forecasts the base caches up to `ends` [sequences], each beyond its cache's position, and runs
/// nothing of the base: the predicted cache of training (method §4).
void forecast_up_to(const Models& models, std::span<Sequence* const> sequences,
                    std::span<const int64_t> ends, PrefillWorkspace& workspace);

// ---- shared by the strategies ----

/// Which cache of a sequence a run fills.
using CacheMember = KVCache Sequence::*;

/// What run_tokens runs: the tokens [cache position, end) of each sequence.
struct TokenRun {
  const Transformer* model = nullptr;
  CacheMember cache = nullptr;
  std::span<Sequence* const> sequences;
  std::span<const int64_t> ends;  ///< one past the last token to run, per sequence
  RunLayersOptions options;       ///< `last` 0 means all layers
};

/// Embeds, runs and advances the caches. Returns the hidden-state rows (in workspace.rows), or null
/// if the stop token fired. Sequences with nothing to run must not be passed.
float* run_tokens(const TokenRun& run, Workspace& workspace);

/// Rows that go through a model together: bounds the scratch memory of a long prompt or a large
/// batch, and is enough for the weights' traffic to be small beside the arithmetic and for every
/// thread to have its share.
constexpr int64_t rows_together(int threads) { return std::max<int64_t>(256, 32 * threads); }

/// Sequences, and how far each goes, that run together.
struct TokenPass {
  std::vector<Sequence*> sequences;
  std::vector<int64_t> ends;
};

/// Cuts the tokens from each `cache`'s position to its end into passes of at most `most_rows`
/// rows, to be run in this order: many sequences are grouped, and one that is longer goes through
/// by itself in equal parts, of which the last may join a group. A pass holds either nothing but
/// such an earlier part, or nothing but what reaches the ends.
std::vector<TokenPass> token_passes(CacheMember cache, std::span<Sequence* const> sequences,
                                    std::span<const int64_t> ends, int64_t most_rows);

/// Runs all pending tokens of the sequences through all layers, in token_passes, and computes the
/// logits of each last token. False: stopped.
bool run_pending(const Transformer& model, CacheMember cache, std::span<Sequence* const> sequences,
                 float* logits, Workspace& workspace, const std::stop_token& stop);

/// Runs the pending tokens of one sequence up to `end`, at most `max_rows` of them, leaving K/V
/// only. False: stopped.
bool run_without_output(const Transformer& model, CacheMember cache, Sequence& sequence,
                        int64_t end, int64_t max_rows, Workspace& workspace,
                        const std::stop_token& stop);

/// Runs pending tokens until at most `max_rows` are left for the run that gives the logits: what
/// `advance` does for a model that reads its tokens itself.
PrefillState advance_pending(const Transformer& model, CacheMember cache, Sequence& sequence,
                             int64_t max_rows, Workspace& workspace, const std::stop_token& stop,
                             PrefillReport& report);

/// Takes the caches back to where they were when it was made, unless dismissed.
class CacheRollback {
 public:
  explicit CacheRollback(std::span<Sequence* const> sequences);
  ~CacheRollback();
  CacheRollback(const CacheRollback&) = delete;
  CacheRollback& operator=(const CacheRollback&) = delete;
  void dismiss() { positions_.clear(); }

 private:
  struct Position {
    Sequence* sequence;
    int64_t base, auxiliary;
  };
  std::vector<Position> positions_;
};

}  // namespace kvcast

// Prefill strategies: from prompt tokens to a filled cache and the logits of the last token.
// Afterwards decoding is the same for all. One file per strategy.
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>

#include "kvcast/result.h"
#include "model/flops.h"
#include "prefill/token_runs.h"

namespace kvcast {

/// Where the time of one prefill went, and how much of the prompt was forecast.
struct PrefillReport {
  double auxiliary_ms = 0;
  double predictor_ms = 0;
  /// Under kv-prediction what is left of the base's run when the auxiliary is done (TailRun).
  double base_ms = 0;
  int64_t predicted_tokens = 0;  ///< rows of the base's cache that the predictor filled
  int64_t computed_tokens = 0;   ///< rows that the answering model computed itself
  bool stopped = false;          ///< the stop token fired: caches are as before, no logits
  /// Where the auxiliary has read all of the only sequence with the forecast: its logits
  /// [vocab_size] after the last token, in the workspace, for the mix. Null: it has yet to.
  const float* auxiliary_logits = nullptr;

  /// Another sequence's part of one prefill.
  void add(const PrefillReport& other) {
    auxiliary_ms += other.auxiliary_ms;
    predictor_ms += other.predictor_ms;
    base_ms += other.base_ms;
    predicted_tokens += other.predicted_tokens;
    computed_tokens += other.computed_tokens;
    stopped = stopped || other.stopped;
  }
  [[nodiscard]] double& answering_ms(Sequence::Answerer answerer) {
    return answerer == Sequence::Answerer::kBase ? base_ms : auxiliary_ms;
  }
};

/// How far PrefillStrategy::advance has come.
enum class PrefillState {
  kMore,     ///< call advance again
  kLastRun,  ///< only next_logits is left; its pending tokens and the rows run now are max_rows
  kDone,     ///< the logits of the last token are written
};

/// Caches of one family agree row by row where their tokens agree, so that a prompt may start from
/// an earlier one's rows without changing its answer.
enum class CacheFamily {
  kNone,  ///< never
  kExact,
  kForecast,
  kHealing,  ///< forecast rows of which the first exact_rows() have been refined
  kAuxiliary,
};

/// What a strategy does to the caches of a sequence.
struct CacheUse {
  CacheFamily family = CacheFamily::kNone;
  /// Whose cache holds the prompt afterwards, and the answer.
  Sequence::Answerer answerer = Sequence::Answerer::kBase;
  /// The auxiliary's cache holds the prompt too.
  bool auxiliary_reads = false;
  /// And the answer.
  bool auxiliary_reads_answer = false;
  /// The answering model computes every prompt token's row itself, so that all can be scored.
  bool computes_all_rows = false;
};

/// One call's share of a prefill.
struct PrefillStep {
  static constexpr int64_t kAllRows = std::numeric_limits<int64_t>::max() / 2;

  const Models& models;
  std::span<Sequence* const> sequences;
  /// Rows that may be run of each sequence. A caller that sets a limit has other sequences to
  /// decode meanwhile.
  int64_t max_rows = kAllRows;
  float* logits = nullptr;  // [sequences, vocab_size]
  PrefillWorkspace& workspace;
  const std::stop_token& stop;
};

class PrefillStrategy;

/// What a strategy that decides prompt by prompt decided.
struct PrefillChoice {
  std::unique_ptr<PrefillStrategy> strategy;
  double estimated_ms = 0;  ///< of the prefill
};

/// A strategy is immutable and may be used by many threads at once.
class PrefillStrategy {
 public:
  /// `exact`, `kv-prediction`, `kv-prediction:tail=16,refine=auto,mix=0.5`, `auto:ttft=300`,
  /// `auxiliary`, `random:0.5`, `static:0.5`, `lazy:0.75-0.25`, `zero-cache`, `zero-cache:tail=16`.
  /// Errors list what is known.
  static Result<std::unique_ptr<PrefillStrategy>> parse(std::string_view spec);
  virtual ~PrefillStrategy() = default;

  /// The canonical spec string.
  [[nodiscard]] virtual std::string spec() const = 0;
  [[nodiscard]] virtual bool needs_bundle() const = 0;
  [[nodiscard]] virtual CacheUse cache_use() const = 0;
  /// Rows to be refined beside each decode step: 0 is none, or kRefineAuto.
  [[nodiscard]] virtual int64_t refine_rows() const { return 0; }
  /// KvPredictionOptions::gate.
  [[nodiscard]] virtual std::optional<double> gate() const { return std::nullopt; }
  /// KvPredictionOptions::mix.
  [[nodiscard]] virtual double mix() const { return 0; }
  /// How many leading rows of a prompt's cache may come from its family's earlier prompts.
  [[nodiscard]] virtual int64_t reusable_rows(int64_t /*prompt_tokens*/) const { return 0; }

  /// What choose() has to know of this machine is measured, unless that has been done; it takes as
  /// long as a few prompts.
  virtual void measure(const Models& /*models*/) const {}
  /// What to do in its place with what is pending of this sequence, whose cache may lose forecast
  /// rows by it; none: just this.
  [[nodiscard]] virtual std::optional<PrefillChoice> choose(const Models& /*models*/,
                                                            Sequence& /*sequence*/) const {
    return std::nullopt;
  }

  /// What a prompt on an empty cache costs, by an exact count.
  [[nodiscard]] virtual PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const = 0;
  /// FLOPs of `exact` over this strategy's as the paper's tables approximate them (method §6).
  [[nodiscard]] virtual double paper_reduction(const ModelPair& models,
                                               int64_t prompt_tokens) const = 0;

  /// Runs everything pending of each sequence (at least one token each; see check_prompt) and
  /// writes the next-token logits of each, [sequences, vocab_size].
  PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences, float* logits,
                        PrefillWorkspace& workspace, const std::stop_token& stop) const;

  /// Prefill in pieces, for a scheduler that keeps other sequences flowing meanwhile: runs at most
  /// `max_rows` more rows of `sequence` and adds to `report`. Ends in the same cache as prefill().
  /// If the stop token fired (report.stopped) the sequence must be discarded. A strategy that
  /// cannot stop half-way does everything in the first call.
  PrefillState advance(const Models& models, Sequence& sequence, int64_t max_rows, float* logits,
                       PrefillWorkspace& workspace, const std::stop_token& stop,
                       PrefillReport& report) const;

 private:
  /// Mixes the auxiliaries' logits into those that are written.
  void mix_in(const PrefillStep& step, PrefillReport& report) const;
  /// The strategy's policy: what comes next for these sequences.
  virtual PrefillState next(const PrefillStep& step, PrefillReport& report) const = 0;
};

struct PromptError {
  bool too_long = false;  ///< for the context; else something else is wrong
  std::string message;
};

/// What a caller must make sure of before prefill of `tokens`, all of the conversation: the
/// strategy fits the model, there is something to run, token ids are in range, the context is not
/// exceeded. Errors say which and by how much.
tl::expected<void, PromptError> check_prompt(const PrefillStrategy& strategy, const Models& models,
                                             std::span<const int32_t> tokens);
/// The first of these alone.
Status check_strategy(const PrefillStrategy& strategy, const Models& models);

/// Rows that a sequence had before its prefill.
struct PrefillStart {
  int64_t base = 0;   ///< of the base's cache
  int64_t known = 0;  ///< that the auxiliary need not read again (known_rows)
};
PrefillStart prefill_start(const Models& models, const Sequence& sequence);

/// Tells the models' PrefillPace what the parts of one sequence's prefill took.
void observe_work(const PrefillStrategy& strategy, const Models& models, const PrefillStart& start,
                  const PrefillReport& report);
/// The same, and what is to be known of a prefill that took `ms` in all.
void observe_prefill(const PrefillStrategy& strategy, const Models& models,
                     const PrefillStart& start, const PrefillReport& report, double ms,
                     std::optional<double> estimated_ms);

/// Whether the auxiliary may guess at an answer of the base: it is a model of its own, and with
/// `strategy` it reads the prompt with all of its layers.
bool auxiliary_may_guess(const PrefillStrategy& strategy, const Models& models);

/// Makes room for a prompt and its answer, as far as the context goes, in the caches that hold the
/// answer after prefill by `strategy`; `drafts`: also in that of an auxiliary that may guess.
/// Without it the cache grows by halves, which copies it and holds it twice for a moment.
void reserve_answer(const PrefillStrategy& strategy, const Models& models, Sequence& sequence,
                    int64_t prompt_tokens, int64_t answer_tokens, bool drafts = false);

std::unique_ptr<PrefillStrategy> make_exact_strategy();
std::unique_ptr<PrefillStrategy> make_auxiliary_strategy();
struct KvPredictionOptions {
  int64_t tail = 1;    ///< at least 1: last prompt tokens that the base runs itself; 1 is the paper
  int64_t refine = 0;  ///< PrefillStrategy::refine_rows
  /// A forecast of which GateDecision::score is lower is given up: the prompt is read exactly.
  std::optional<double> gate = {};
  double mix = 0;  ///< Sequence::mix, below 1
};
/// KvPredictionOptions::gate, in place of a threshold: the bundle's own (Models::gate).
constexpr double kGateAuto = std::numeric_limits<double>::infinity();
std::unique_ptr<PrefillStrategy> make_kv_prediction_strategy(const KvPredictionOptions& options);
/// Exact if the first token comes within so many milliseconds, else the forecast that does.
std::unique_ptr<PrefillStrategy> make_auto_strategy(int64_t ttft_ms);
/// Baselines of the paper (method §8) that drop prompt tokens; fractions in (0, 1] of the prompt.
std::unique_ptr<PrefillStrategy> make_random_strategy(double keep);
std::unique_ptr<PrefillStrategy> make_static_strategy(double keep);
std::unique_ptr<PrefillStrategy> make_lazy_strategy(double keep_first, double keep_last);
/// The control in which nothing stands where the forecast would.
std::unique_ptr<PrefillStrategy> make_zero_cache_strategy(int64_t tail);

/// Runs pending tokens of `cache` until at most `max_rows` of each sequence are left for the run
/// that gives the logits: `next` for a model that reads its tokens itself.
PrefillState run_pending(const PrefillStep& step, CacheMember cache, PrefillReport& report);

}  // namespace kvcast

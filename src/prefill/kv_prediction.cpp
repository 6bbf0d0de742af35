#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/stopwatch.h"
#include "prefill/forecast_run.h"
#include "prefill/gate.h"
#include "prefill/mixing.h"
#include "prefill/refine.h"
#include "prefill/tail_run.h"
#include "prefill/unread_tokens.h"

namespace kvcast {
namespace {

/// KV Prediction (method §3, paper Fig. 2b). The auxiliary, or the base's own first layers, or both
/// read the prompt up to its last `tail` tokens, the predictor turns what they compute into a
/// forecast of the base's cache, and the base runs the tail over that forecast. On a conversation's
/// next turn the auxiliary first catches up with what it has not read (the last tail and the base's
/// own answer); only tokens that the base has no K/V for are forecast. With a `mix` the auxiliary
/// reads all with all of its layers, the tail too: with the rest or, of several sequences, after it
/// (mix_logits).
class KvPredictionStrategy final : public PrefillStrategy {
 public:
  explicit KvPredictionStrategy(const KvPredictionOptions& options)
      : tail_(options.tail), refine_(options.refine), gate_(options.gate), mix_(options.mix) {}

  [[nodiscard]] std::string spec() const override {
    std::string options = tail_ == 1 ? "" : fmt::format(",tail={}", tail_);
    if (refine_ == kRefineAuto) options += ",refine=auto";
    if (refine_ > 0) options += fmt::format(",refine={}", refine_);
    if (gate_) options += *gate_ == kGateAuto ? ",gate=auto" : fmt::format(",gate={}", *gate_);
    if (mix_ > 0) options += fmt::format(",mix={}", mix_);
    return options.empty() ? "kv-prediction" : "kv-prediction:" + options.substr(1);
  }
  [[nodiscard]] bool needs_bundle() const override { return true; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return kv_prediction_cost(models.base, models.auxiliary, models.plan, prompt_tokens, tail_,
                              mix_ > 0);
  }
  [[nodiscard]] double paper_reduction(const ModelPair& models,
                                       int64_t prompt_tokens) const override {
    if (models.plan.exact_layers == 0) {
      return kvcast::paper_reduction(models.base, models.auxiliary);
    }
    return approximate_exact_flops(models.base, prompt_tokens) /
           approximate_kv_prediction_flops(models.base, models.auxiliary, models.plan,
                                           prompt_tokens, tail_);
  }
  [[nodiscard]] CacheUse cache_use() const override {
    return {.family = refine_ == 0 ? CacheFamily::kForecast : CacheFamily::kHealing,
            .auxiliary_reads = true,
            .auxiliary_reads_answer = mix_ > 0};
  }
  [[nodiscard]] int64_t refine_rows() const override { return refine_; }
  [[nodiscard]] std::optional<double> gate() const override { return gate_; }
  [[nodiscard]] double mix() const override { return mix_; }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return std::max<int64_t>(prompt_tokens - tail_, 0);
  }

 private:
  /// With fewer rows the base's weights come hardly sooner than by a decode step, which the base
  /// may do for other sequences anyway.
  static constexpr int64_t kRowsThatCarryTheTail = 64;

  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    for (Sequence* sequence : step.sequences) sequence->answerer = Sequence::Answerer::kBase;
    const Unforecast short_of = unforecast(step);
    const bool carried = tails_are_carried(step, short_of);
    const TokenPass first = sinks(step.models, short_of.sequences, short_of.ends);
    const std::vector<int64_t> sink_rows =
        carried ? sinks_beside_tails(step, short_of, first) : std::vector<int64_t>();
    if (!first.sequences.empty() && sink_rows.empty()) {
      const Stopwatch watch;
      for (size_t s = 0; s < first.sequences.size(); ++s) {
        report.computed_tokens += first.ends[s] - first.sequences[s]->base.next_position();
      }
      report.stopped = !run_sinks(step.models, first, step.workspace, step.stop);
      report.base_ms += watch.elapsed_ms();
      return PrefillState::kMore;
    }
    const int64_t layers = reader_layers(step.models, mix_);
    if (const TokenPass behind =
            unread(step.models, readers(step, short_of), layers, step.max_rows);
        !behind.sequences.empty()) {
      const Stopwatch watch;
      report.stopped = !read_unread(step.models, behind, layers, step.workspace, step.stop);
      report.auxiliary_ms += watch.elapsed_ms();
      return PrefillState::kMore;
    }
    if (short_of.sequences.empty()) {
      const bool asked = std::ranges::any_of(
          step.sequences, [this](const Sequence* sequence) { return is_unjudged(*sequence); });
      return asked ? run_to_judge(step, short_of, report)
                   : run_pending(step, &Sequence::base, report);
    }
    ForecastRun run{.models = step.models,
                    .workspace = step.workspace,
                    .stop = step.stop,
                    .report = report,
                    .reader_layers = layers,
                    .keeps_residual = refine_ != 0};
    run.reads_to_the_end = reads_to_the_end(step, short_of);
    if (!short_of.reaches_the_tails) {
      report.stopped = !forecast(run, short_of.sequences, short_of.ends);
      return PrefillState::kMore;
    }
    std::optional<TailRun> tail;
    if (carried) {
      tail.emplace(step.models, step.sequences, short_of.begins, sink_rows, step.workspace.base,
                   step.stop);
      run.tail = &*tail;
    }
    // Rows that the base has yet to overwrite are nothing to go on from.
    CacheRollback rollback(sink_rows.empty() ? std::span<Sequence* const>() : first.sequences);
    report.stopped = !forecast(run, short_of.sequences, short_of.ends);
    if (report.stopped) return PrefillState::kDone;
    if (!carried && !gate_) return PrefillState::kLastRun;
    if (!carried) return run_to_judge(step, short_of, report);
    const Stopwatch watch;
    const float* const rows = tail->finish();
    const int64_t sinks_run = std::accumulate(sink_rows.begin(), sink_rows.end(), int64_t{0});
    report.computed_tokens += short_of.tail_rows + sinks_run;
    report.predicted_tokens -= sinks_run;
    report.stopped = rows == nullptr;
    if (!report.stopped) rollback.dismiss();
    PrefillState state = PrefillState::kDone;
    if (gate_ && !report.stopped) {
      state = judge(step, short_of, rows, report);
    } else if (!report.stopped) {
      step.models.base->logits(rows, std::ssize(step.sequences), step.logits, step.workspace.base);
    }
    report.base_ms += watch.elapsed_ms();
    return state;
  }

  /// The sequences with something to forecast, and how far this step may go.
  struct Unforecast {
    std::vector<Sequence*> sequences;
    std::vector<int64_t> ends;    // [sequences]
    std::vector<int64_t> begins;  // [all of the step] where the base's own tokens begin
    int64_t rows = 0;             // to be forecast
    int64_t tail_rows = 0;        // the base's own
    bool reaches_the_tails = true;
  };
  [[nodiscard]] Unforecast unforecast(const PrefillStep& step) const {
    Unforecast found;
    for (Sequence* sequence : step.sequences) {
      const auto tokens = static_cast<int64_t>(sequence->tokens.size());
      const int64_t start = sequence->base.next_position();
      const bool refused = sequence->gate && !sequence->gate->trusted();
      const int64_t end =
          refused || reads_itself(step.models, *sequence) ? start : std::max(tokens - tail_, start);
      sequence->base.reserve(tokens);
      found.begins.push_back(end);
      found.tail_rows += tokens - end;
      if (end == start) continue;
      found.sequences.push_back(sequence);
      found.ends.push_back(std::min(end, start + step.max_rows));
      found.rows += found.ends.back() - start;
      // The last run's rows count too.
      found.reaches_the_tails = found.reaches_the_tails && tokens - start <= step.max_rows;
    }
    return found;
  }

  /// The base's own last tokens run beside the forecast of what comes before.
  static bool tails_are_carried(const PrefillStep& step, const Unforecast& short_of) {
    const bool alone = step.max_rows == PrefillStep::kAllRows;
    return !short_of.sequences.empty() && short_of.reaches_the_tails &&
           short_of.tail_rows <= TailRun::kMostRows &&
           (alone || short_of.rows >= kRowsThatCarryTheTail);
  }
  /// A prompt's first positions may run with its tail, so that the base's weights are read once:
  /// how many of each sequence of the step; empty: they have to run before.
  static std::vector<int64_t> sinks_beside_tails(const PrefillStep& step,
                                                 const Unforecast& short_of,
                                                 const TokenPass& first) {
    const ForecastPlan& plan = step.models.plan;
    if (plan.exact_layers == plan.base_layers()) return {};  // nothing to overwrite
    std::vector<int64_t> rows(step.sequences.size());
    int64_t total = 0;
    for (size_t f = 0; f < first.sequences.size(); ++f) {
      if (first.sequences[f]->base.next_position() != 0) return {};
      const auto place = std::ranges::find(step.sequences, first.sequences[f]);
      rows[static_cast<size_t>(place - step.sequences.begin())] = first.ends[f];
      total += first.ends[f];
    }
    // Where nothing else is forecast the base is done sooner without the auxiliary.
    const bool helps = total > 0 && total < short_of.rows;
    const bool fit = total + short_of.tail_rows <= TailRun::kMostRowsWithSinks;
    return helps && fit ? rows : std::vector<int64_t>();
  }

  /// With a mix the auxiliary has to read the tail as well, and reads it with the rest.
  [[nodiscard]] bool reads_to_the_end(const PrefillStep& step, const Unforecast& short_of) const {
    return mix_ > 0 && step.sequences.size() == 1 && short_of.reaches_the_tails &&
           std::ssize(step.sequences.front()->tokens) <=
               step.models.auxiliary->config().max_context_tokens;
  }

  /// Whose auxiliaries have to know what their bases hold: to forecast, or to have a say.
  [[nodiscard]] std::vector<Sequence*> readers(const PrefillStep& step,
                                               const Unforecast& short_of) const {
    std::vector<Sequence*> found = short_of.sequences;
    for (Sequence* sequence : step.sequences) {
      const bool forecasts = std::ranges::find(found, sequence) != found.end();
      if (!forecasts && mixes(step.models, *sequence)) found.push_back(sequence);
    }
    return found;
  }

  /// On an exact cache the base reads a few tokens in the time of its tail alone, and any number
  /// sooner than an auxiliary that has to read what came before first; and the cache stays exact.
  [[nodiscard]] bool reads_itself(const Models& models, const Sequence& sequence) const {
    const int64_t start = sequence.base.next_position();
    if (refine_ == 0 || start == 0 || sequence.base.exact_rows() < start) return false;
    const int64_t rows = std::ssize(sequence.tokens) - start;
    const int64_t unread = start - known_rows(models, sequence, reader_layers(models, mix_));
    const int64_t base_bytes = models.base->weights().bytes();
    const int64_t reader_bytes =
        models.auxiliary ? models.auxiliary->weights().bytes()
                         : base_bytes * models.plan.exact_layers / models.base->config().n_layers();
    return rows <= TailRun::kMostRows || rows * base_bytes <= (rows + unread) * reader_bytes;
  }

  /// The cache goes on over a forecast of which nothing has been said yet.
  [[nodiscard]] bool is_unjudged(const Sequence& sequence) const {
    return gate_ && !sequence.gate && sequence.base.exact_rows() < sequence.base.next_position();
  }

  /// The base's own run of what is pending, and the judgement of what was forecast.
  PrefillState run_to_judge(const PrefillStep& step, const Unforecast& short_of,
                            PrefillReport& report) const {
    const Stopwatch watch;
    RunLayersOptions options;
    options.stop = step.stop;
    TokenPass before;
    std::vector<int64_t> ends;
    bool more = false;
    for (Sequence* sequence : step.sequences) {
      const int64_t pending = sequence->pending_tokens();
      const int64_t first = std::min(pending - 1, step.max_rows);
      ends.push_back(std::ssize(sequence->tokens));
      report.computed_tokens += pending;
      if (first <= 0) continue;
      before.sequences.push_back(sequence);
      before.ends.push_back(sequence->base.next_position() + first);
      more = more || pending > step.max_rows;
      if (more) report.computed_tokens += first - pending;
    }
    report.stopped = !before.sequences.empty() &&
                     !run_without_output(*step.models.base, &Sequence::base, before.sequences,
                                         before.ends, options, step.workspace.base);
    PrefillState state = more ? PrefillState::kMore : PrefillState::kDone;
    if (!more && !report.stopped) {
      const float* const rows =
          run_tokens({step.models.base.get(), &Sequence::base, step.sequences, ends, options},
                     step.workspace.base);
      report.stopped = rows == nullptr;
      if (!report.stopped) state = judge(step, short_of, rows, report);
    }
    report.base_ms += watch.elapsed_ms();
    return state;
  }

  /// The logits of each sequence's last token; where its forecast is not trusted it is read exactly
  /// for that. `rows` [sequences, model_dim]: of these tokens, behind the last layer.
  PrefillState judge(const PrefillStep& step, const Unforecast& short_of, const float* rows,
                     PrefillReport& report) const {
    const Transformer& base = *step.models.base;
    base.logits(rows, std::ssize(step.sequences), step.logits, step.workspace.base);
    std::vector<Sequence*> judged;
    std::vector<int64_t> begins;
    std::vector<float*> logits;
    for (size_t s = 0; s < step.sequences.size(); ++s) {
      Sequence* const sequence = step.sequences[s];
      if (!is_unjudged(*sequence)) continue;
      judged.push_back(sequence);
      begins.push_back(short_of.begins[s]);
      logits.push_back(step.logits + static_cast<int64_t>(s) * base.config().vocab_size);
    }
    const double threshold = *gate_ == kGateAuto ? step.models.gate.value_or(0) : *gate_;
    const std::vector<const float*> known(logits.begin(), logits.end());
    report.stopped =
        !judge_forecasts(step.models, judged, known, threshold, step.workspace, step.stop);
    for (size_t s = 0; s < judged.size() && !report.stopped; ++s) {
      Sequence* const sequence = judged[s];
      if (sequence->gate->trusted()) continue;
      const int64_t exact = sequence->base.exact_rows();
      report.predicted_tokens -= std::min(report.predicted_tokens, begins[s] - exact);
      sequence->base.truncate(exact);
      if (step.max_rows < PrefillStep::kAllRows) return PrefillState::kMore;  // it is the only one
      report.computed_tokens += sequence->pending_tokens();
      Sequence* const one[] = {sequence};
      report.stopped = !decode_step(step.models, one, logits[s], step.workspace, step.stop);
    }
    return PrefillState::kDone;
  }

  int64_t tail_, refine_;
  std::optional<double> gate_;
  double mix_;
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_kv_prediction_strategy(const KvPredictionOptions& options) {
  return std::make_unique<KvPredictionStrategy>(options);
}

}  // namespace kvcast

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/stopwatch.h"
#include "prefill/strategy.h"
#include "prefill/tail_run.h"

namespace kvcast {
namespace {

/// KV Prediction (method §3, paper Fig. 2b). The auxiliary reads the prompt up to its last `tail`
/// tokens, the predictor turns its K/V into a forecast of the base's cache, and the base runs the
/// tail over that forecast. On a conversation's next turn the auxiliary first catches up with what
/// it has not read (the last tail and the base's own answer); only tokens that the base has no K/V
/// for are forecast.
class KvPredictionStrategy final : public PrefillStrategy {
 public:
  explicit KvPredictionStrategy(int64_t tail) : tail_(tail) {}

  [[nodiscard]] std::string spec() const override {
    return tail_ == 1 ? "kv-prediction" : fmt::format("kv-prediction:tail={}", tail_);
  }
  [[nodiscard]] bool needs_bundle() const override { return true; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return kv_prediction_cost(models.base, models.auxiliary, models.layer_map, prompt_tokens,
                              tail_);
  }
  [[nodiscard]] double paper_reduction(const ModelPair& models,
                                       int64_t /*prompt_tokens*/) const override {
    return kvcast::paper_reduction(models.base, models.auxiliary);
  }
  [[nodiscard]] std::string_view cache_family() const override { return "kv-prediction"; }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return std::max<int64_t>(prompt_tokens - tail_, 0);
  }

  PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences, float* logits,
                        PrefillWorkspace& workspace, const std::stop_token& stop) const override {
    CacheRollback rollback(sequences);
    PrefillReport report;
    for (Sequence* sequence : sequences) sequence->answerer = Sequence::Answerer::kBase;

    std::vector<Sequence*> short_of;  // those with something to forecast
    std::vector<int64_t> ends;
    for (Sequence* sequence : sequences) {
      const int64_t end = forecast_end(*sequence);
      if (end <= sequence->base.next_position()) continue;
      short_of.push_back(sequence);
      ends.push_back(end);
    }
    std::vector<int64_t> begins;
    int64_t tail_rows = 0;
    for (Sequence* sequence : sequences) {
      sequence->base.reserve(static_cast<int64_t>(sequence->tokens.size()));
      begins.push_back(std::max(forecast_end(*sequence), sequence->base.next_position()));
      tail_rows += static_cast<int64_t>(sequence->tokens.size()) - begins.back();
    }
    report.computed_tokens = tail_rows;
    std::optional<TailRun> tail;
    if (!short_of.empty() && tail_rows <= TailRun::kMostRows) {
      tail.emplace(models, sequences, begins, workspace.base, stop);
    }
    report.stopped =
        !forecast(models, short_of, ends, workspace, stop, report, tail ? &*tail : nullptr);
    if (report.stopped) return report;

    if (tail) {
      finish_tail(*tail, logits, report);
    } else {
      const Stopwatch watch;
      report.stopped =
          !run_pending(*models.base, &Sequence::base, sequences, logits, workspace.base, stop);
      report.base_ms = watch.elapsed_ms();
    }
    if (!report.stopped) rollback.dismiss();
    return report;
  }

  PrefillState advance(const Models& models, Sequence& sequence, int64_t max_rows, float* logits,
                       PrefillWorkspace& workspace, const std::stop_token& stop,
                       PrefillReport& report) const override {
    sequence.answerer = Sequence::Answerer::kBase;
    const int64_t end = forecast_end(sequence);
    const int64_t start = sequence.base.next_position();
    if (start < end) {
      Sequence* const one[] = {&sequence};
      const int64_t behind = start - known_rows(models, sequence);
      const int64_t ends[] = {std::min(end, start + max_rows)};
      if (behind > 0) {  // what the auxiliary has not read yet, before anything is forecast
        const Stopwatch watch;
        const int64_t catch_up_ends[] = {start - behind + std::min(behind, max_rows)};
        report.stopped = !read_up_to(models, one, catch_up_ends, workspace, stop);
        report.auxiliary_ms += watch.elapsed_ms();
        return PrefillState::kMore;
      }
      const bool all = ends[0] == end && end - start + tail_ <= max_rows;
      if (all && tail_ <= TailRun::kMostRows && end - start >= kRowsThatCarryTheTail) {
        sequence.base.reserve(static_cast<int64_t>(sequence.tokens.size()));
        TailRun tail(models, one, ends, workspace.base, stop);
        report.stopped = !forecast(models, one, ends, workspace, stop, report, &tail);
        if (!report.stopped) finish_tail(tail, logits, report);
        report.computed_tokens += tail_;
        return PrefillState::kDone;
      }
      report.stopped = !forecast(models, one, ends, workspace, stop, report);
      return all ? PrefillState::kLastRun : PrefillState::kMore;
    }
    const Stopwatch watch;
    const PrefillState state = advance_pending(*models.base, &Sequence::base, sequence, max_rows,
                                               workspace.base, stop, report);
    report.base_ms += watch.elapsed_ms();
    return state;
  }

  /// Forecasts the base caches of `sequences` up to `ends`, each beyond its base's position; `tail`
  /// may begin during the last pass. False: stopped.
  static bool forecast(const Models& models, std::span<Sequence* const> sequences,
                       std::span<const int64_t> ends, PrefillWorkspace& workspace,
                       const std::stop_token& stop, PrefillReport& report,
                       TailRun* tail = nullptr) {
    if (sequences.empty()) return true;
    const Stopwatch watch;
    if (!catch_up(models, sequences, workspace, stop)) return false;
    report.auxiliary_ms += watch.elapsed_ms();
    for (size_t s = 0; s < sequences.size(); ++s) {
      sequences[s]->base.reserve(static_cast<int64_t>(sequences[s]->tokens.size()));
      sequences[s]->auxiliary.reserve(ends[s]);
    }
    const std::vector<TokenPass> passes =
        token_passes(&Sequence::base, sequences, ends, rows_together(models.auxiliary->threads()));
    for (const TokenPass& pass : passes) {
      TailRun* const begun = &pass == &passes.back() ? tail : nullptr;
      if (!forecast_together(models, pass, workspace, stop, report, begun)) return false;
    }
    return true;
  }

 private:
  /// With fewer rows the base's weights come hardly sooner than by a decode step, which the base
  /// may do for other sequences anyway.
  static constexpr int64_t kRowsThatCarryTheTail = 64;

  static void finish_tail(TailRun& tail, float* logits, PrefillReport& report) {
    const Stopwatch watch;
    report.stopped = !tail.finish(logits);
    report.base_ms += watch.elapsed_ms();
  }

  /// One pass of forecast(): the auxiliary caches end where the base caches do.
  static bool forecast_together(const Models& models, const TokenPass& pass,
                                PrefillWorkspace& workspace, const std::stop_token& stop,
                                PrefillReport& report, TailRun* tail) {
    const Stopwatch watch;
    double predictor_ms = 0;
    std::vector<SequenceRows> base_rows;
    for (size_t s = 0; s < pass.sequences.size(); ++s) {
      KVCache& base = pass.sequences[s]->base;
      base_rows.push_back({&base, pass.ends[s] - base.next_position()});
    }
    RunLayersOptions options = auxiliary_options(models, stop);
    Forecast forecast(*models.predictor, *models.base, base_rows, workspace.predictor);
    options.on_raw_key_values = [&](const RawKeyValues& raw) {
      const Stopwatch predictor_watch;
      forecast.add(raw);
      predictor_ms += predictor_watch.elapsed_ms();
      if (tail != nullptr) tail->forecast_reached(raw.layer);
    };
    if (!run_tokens(
            {models.auxiliary.get(), &Sequence::auxiliary, pass.sequences, pass.ends, options},
            workspace.auxiliary)) {
      return false;
    }
    for (const SequenceRows& rows : base_rows) {
      rows.cache->advance(rows.rows);
      report.predicted_tokens += rows.rows;
    }
    report.predictor_ms += predictor_ms;
    report.auxiliary_ms += watch.elapsed_ms() - predictor_ms;
    return true;
  }

  /// One past the last token whose K/V are forecast.
  [[nodiscard]] int64_t forecast_end(const Sequence& sequence) const {
    return static_cast<int64_t>(sequence.tokens.size()) - tail_;
  }

  /// Rows that the auxiliary has in all layers that the predictor reads, at most the base's.
  static int64_t known_rows(const Models& models, const Sequence& sequence) {
    return std::min(sequence.base.next_position(),
                    sequence.auxiliary.rows_in_first(models.predictor->auxiliary_layers_needed()));
  }

  /// Brings each auxiliary cache to exactly the base's position, where forecasting starts.
  static bool catch_up(const Models& models, std::span<Sequence* const> sequences,
                       PrefillWorkspace& workspace, const std::stop_token& stop) {
    std::vector<Sequence*> behind;
    std::vector<int64_t> ends;
    for (Sequence* sequence : sequences) {
      const int64_t start = sequence->base.next_position();
      if (known_rows(models, *sequence) < start) {
        behind.push_back(sequence);
        ends.push_back(start);
      } else {
        sequence->auxiliary.truncate(start);
      }
    }
    return behind.empty() || read_up_to(models, behind, ends, workspace, stop);
  }

  /// The auxiliary reads the tokens up to `ends` without anything being forecast. False: stopped.
  static bool read_up_to(const Models& models, std::span<Sequence* const> sequences,
                         std::span<const int64_t> ends, PrefillWorkspace& workspace,
                         const std::stop_token& stop) {
    for (Sequence* sequence : sequences) {
      sequence->auxiliary.truncate(known_rows(models, *sequence));
    }
    const RunLayersOptions options = auxiliary_options(models, stop);
    for (const TokenPass& pass : token_passes(&Sequence::auxiliary, sequences, ends,
                                              rows_together(models.auxiliary->threads()))) {
      if (!run_tokens(
              {models.auxiliary.get(), &Sequence::auxiliary, pass.sequences, pass.ends, options},
              workspace.auxiliary)) {
        return false;
      }
    }
    return true;
  }

  /// The auxiliary only has to leave K/V in the layers that the map names (method §3).
  static RunLayersOptions auxiliary_options(const Models& models, const std::stop_token& stop) {
    RunLayersOptions options;
    options.last = models.predictor->auxiliary_layers_needed();
    options.output = LastLayerOutput::kNothing;
    options.stop = stop;
    return options;
  }

  int64_t tail_;
};

}  // namespace

void forecast_up_to(const Models& models, std::span<Sequence* const> sequences,
                    std::span<const int64_t> ends, PrefillWorkspace& workspace) {
  PrefillReport report;
  KvPredictionStrategy::forecast(models, sequences, ends, workspace, {}, report);
}

std::unique_ptr<PrefillStrategy> make_kv_prediction_strategy(int64_t tail) {
  return std::make_unique<KvPredictionStrategy>(tail);
}

}  // namespace kvcast

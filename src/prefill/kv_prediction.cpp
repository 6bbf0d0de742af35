#include <fmt/format.h>

#include <algorithm>

#include "base/stopwatch.h"
#include "prefill/strategy.h"

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

  PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences, float* logits,
                        PrefillWorkspace& workspace, const std::stop_token& stop) const override {
    CacheRollback rollback(sequences);
    PrefillReport report;
    for (Sequence* sequence : sequences) sequence->answerer = Sequence::Answerer::kBase;

    report.stopped = !forecast(models, sequences, workspace, stop, report);
    if (report.stopped) return report;

    const Stopwatch watch;
    for (const Sequence* sequence : sequences) {
      report.computed_tokens +=
          static_cast<int64_t>(sequence->tokens.size()) - sequence->base.next_position();
    }
    report.stopped =
        !run_pending(*models.base, &Sequence::base, sequences, logits, workspace.base, stop);
    report.base_ms = watch.elapsed_ms();
    if (!report.stopped) rollback.dismiss();
    return report;
  }

 private:
  /// One past the last token whose K/V are forecast.
  [[nodiscard]] int64_t forecast_end(const Sequence& sequence) const {
    return static_cast<int64_t>(sequence.tokens.size()) - tail_;
  }

  /// Fills the base caches up to forecast_end. False: stopped.
  bool forecast(const Models& models, std::span<Sequence* const> all, PrefillWorkspace& workspace,
                const std::stop_token& stop, PrefillReport& report) const {
    std::vector<Sequence*> sequences;  // those with something to forecast
    for (Sequence* sequence : all) {
      if (forecast_end(*sequence) > sequence->base.next_position()) sequences.push_back(sequence);
    }
    if (sequences.empty()) return true;
    const Stopwatch watch;
    if (!catch_up(models, sequences, workspace, stop)) return false;

    std::vector<int64_t> ends;
    std::vector<SequenceRows> base_rows;
    for (Sequence* sequence : sequences) {
      const int64_t end = forecast_end(*sequence);
      ends.push_back(end);
      base_rows.push_back({&sequence->base, end - sequence->base.next_position()});
      sequence->base.reserve(static_cast<int64_t>(sequence->tokens.size()));
      report.predicted_tokens += base_rows.back().rows;
    }
    RunLayersOptions options = auxiliary_options(models, stop);
    options.on_raw_key_values = [&](const RawKeyValues& raw) {
      const Stopwatch predictor_watch;
      models.predictor->predict(raw, base_rows, *models.base, workspace.predictor);
      report.predictor_ms += predictor_watch.elapsed_ms();
    };
    if (!run_tokens({models.auxiliary.get(), &Sequence::auxiliary, sequences, ends, options},
                    workspace.auxiliary)) {
      return false;
    }
    for (const SequenceRows& rows : base_rows) rows.cache->advance(rows.rows);
    report.auxiliary_ms = watch.elapsed_ms() - report.predictor_ms;
    return true;
  }

  /// Brings each auxiliary cache to exactly the base's position, where forecasting starts.
  static bool catch_up(const Models& models, std::span<Sequence* const> sequences,
                       PrefillWorkspace& workspace, const std::stop_token& stop) {
    std::vector<Sequence*> behind;
    std::vector<int64_t> ends;
    for (Sequence* sequence : sequences) {
      const int64_t start = sequence->base.next_position();
      KVCache& cache = sequence->auxiliary;
      cache.truncate(
          std::min(start, cache.rows_in_first(models.predictor->auxiliary_layers_needed())));
      if (cache.next_position() < start) {
        behind.push_back(sequence);
        ends.push_back(start);
      }
    }
    if (behind.empty()) return true;
    return run_tokens({models.auxiliary.get(), &Sequence::auxiliary, behind, ends,
                       auxiliary_options(models, stop)},
                      workspace.auxiliary) != nullptr;
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

std::unique_ptr<PrefillStrategy> make_kv_prediction_strategy(int64_t tail) {
  return std::make_unique<KvPredictionStrategy>(tail);
}

}  // namespace kvcast

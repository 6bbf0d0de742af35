#include "base/stopwatch.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

/// The auxiliary alone reads the prompt and answers: the control that KV prediction must beat.
class AuxiliaryStrategy final : public PrefillStrategy {
 public:
  [[nodiscard]] std::string spec() const override { return "auxiliary"; }
  [[nodiscard]] bool needs_bundle() const override { return true; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return exact_cost(models.auxiliary, prompt_tokens);
  }
  [[nodiscard]] double paper_reduction(const ModelPair& models,
                                       int64_t /*prompt_tokens*/) const override {
    return kvcast::paper_reduction(models.base, models.auxiliary);
  }
  [[nodiscard]] std::string_view cache_family() const override { return "auxiliary"; }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return prompt_tokens - 1;
  }

  PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences, float* logits,
                        PrefillWorkspace& workspace, const std::stop_token& stop) const override {
    const Stopwatch watch;
    CacheRollback rollback(sequences);
    PrefillReport report;
    for (Sequence* sequence : sequences) {
      sequence->answerer = Sequence::Answerer::kAuxiliary;
      drop_incomplete_rows(*sequence);
      report.computed_tokens +=
          static_cast<int64_t>(sequence->tokens.size()) - sequence->auxiliary.next_position();
    }
    report.stopped = !run_pending(*models.auxiliary, &Sequence::auxiliary, sequences, logits,
                                  workspace.auxiliary, stop);
    if (!report.stopped) rollback.dismiss();
    report.auxiliary_ms = watch.elapsed_ms();
    return report;
  }

  PrefillState advance(const Models& models, Sequence& sequence, int64_t max_rows,
                       float* /*logits*/, PrefillWorkspace& workspace, const std::stop_token& stop,
                       PrefillReport& report) const override {
    const Stopwatch watch;
    sequence.answerer = Sequence::Answerer::kAuxiliary;
    drop_incomplete_rows(sequence);
    const PrefillState state = advance_pending(*models.auxiliary, &Sequence::auxiliary, sequence,
                                               max_rows, workspace.auxiliary, stop, report);
    report.auxiliary_ms += watch.elapsed_ms();
    return state;
  }

 private:
  /// A turn under kv-prediction leaves out the layers that the predictor does not read; what some
  /// layer misses is run again.
  static void drop_incomplete_rows(Sequence& sequence) {
    KVCache& cache = sequence.auxiliary;
    cache.truncate(cache.rows_in_first(cache.n_layers()));
  }
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_auxiliary_strategy() {
  return std::make_unique<AuxiliaryStrategy>();
}

}  // namespace kvcast

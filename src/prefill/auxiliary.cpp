#include "base/stopwatch.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

/// The auxiliary alone reads the prompt and answers: the control that KV prediction must beat.
class AuxiliaryStrategy final : public PrefillStrategy {
 public:
  [[nodiscard]] std::string spec() const override { return "auxiliary"; }
  [[nodiscard]] bool needs_bundle() const override { return true; }

  PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences, float* logits,
                        PrefillWorkspace& workspace, const std::stop_token& stop) const override {
    const Stopwatch watch;
    CacheRollback rollback(sequences);
    PrefillReport report;
    for (Sequence* sequence : sequences) {
      sequence->answerer = Sequence::Answerer::kAuxiliary;
      // A turn under kv-prediction leaves out the layers that the predictor does not read; what
      // some layer misses is run again.
      KVCache& cache = sequence->auxiliary;
      cache.truncate(cache.rows_in_first(cache.n_layers()));
      report.computed_tokens +=
          static_cast<int64_t>(sequence->tokens.size()) - cache.next_position();
    }
    report.stopped = !run_pending(*models.auxiliary, &Sequence::auxiliary, sequences, logits,
                                  workspace.auxiliary, stop);
    if (!report.stopped) rollback.dismiss();
    report.auxiliary_ms = watch.elapsed_ms();
    return report;
  }
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_auxiliary_strategy() {
  return std::make_unique<AuxiliaryStrategy>();
}

}  // namespace kvcast

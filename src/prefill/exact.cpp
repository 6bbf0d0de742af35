#include "base/stopwatch.h"
#include "prefill/strategy.h"

namespace kvcast {
namespace {

/// The base reads the whole prompt itself.
class ExactStrategy final : public PrefillStrategy {
 public:
  [[nodiscard]] std::string spec() const override { return "exact"; }
  [[nodiscard]] bool needs_bundle() const override { return false; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return exact_cost(models.base, prompt_tokens);
  }
  [[nodiscard]] double paper_reduction(const ModelPair& /*models*/,
                                       int64_t /*prompt_tokens*/) const override {
    return 1;
  }
  [[nodiscard]] std::string_view cache_family() const override { return "exact"; }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return prompt_tokens - 1;
  }

  PrefillReport prefill(const Models& models, std::span<Sequence* const> sequences, float* logits,
                        PrefillWorkspace& workspace, const std::stop_token& stop) const override {
    const Stopwatch watch;
    CacheRollback rollback(sequences);
    PrefillReport report;
    for (Sequence* sequence : sequences) {
      sequence->answerer = Sequence::Answerer::kBase;
      report.computed_tokens +=
          static_cast<int64_t>(sequence->tokens.size()) - sequence->base.next_position();
    }
    report.stopped =
        !run_pending(*models.base, &Sequence::base, sequences, logits, workspace.base, stop);
    if (!report.stopped) rollback.dismiss();
    report.base_ms = watch.elapsed_ms();
    return report;
  }

  PrefillState advance(const Models& models, Sequence& sequence, int64_t max_rows,
                       float* /*logits*/, PrefillWorkspace& workspace, const std::stop_token& stop,
                       PrefillReport& report) const override {
    const Stopwatch watch;
    sequence.answerer = Sequence::Answerer::kBase;
    const PrefillState state = advance_pending(*models.base, &Sequence::base, sequence, max_rows,
                                               workspace.base, stop, report);
    report.base_ms += watch.elapsed_ms();
    return state;
  }
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_exact_strategy() { return std::make_unique<ExactStrategy>(); }

}  // namespace kvcast

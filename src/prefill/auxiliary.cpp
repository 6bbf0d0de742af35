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
  [[nodiscard]] CacheUse cache_use() const override {
    return {.family = CacheFamily::kAuxiliary,
            .answerer = Sequence::Answerer::kAuxiliary,
            .auxiliary_reads = true,
            .computes_all_rows = true};
  }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return prompt_tokens - 1;
  }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    for (Sequence* sequence : step.sequences) {
      sequence->answerer = Sequence::Answerer::kAuxiliary;
      drop_incomplete_rows(*sequence);
    }
    return run_pending(step, &Sequence::auxiliary, report);
  }

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

#include "prefill/strategy.h"
#include "prefill/unread_tokens.h"

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
            .auxiliary_reads_answer = true,
            .computes_all_rows = true};
  }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return prompt_tokens - 1;
  }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    for (Sequence* sequence : step.sequences) {
      sequence->answerer = Sequence::Answerer::kAuxiliary;
      drop_incomplete_rows(sequence->auxiliary);
    }
    return run_pending(step, &Sequence::auxiliary, report);
  }
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_auxiliary_strategy() {
  return std::make_unique<AuxiliaryStrategy>();
}

}  // namespace kvcast

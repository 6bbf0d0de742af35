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
  [[nodiscard]] CacheUse cache_use() const override {
    return {.family = CacheFamily::kExact, .computes_all_rows = true};
  }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return prompt_tokens - 1;
  }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    for (Sequence* sequence : step.sequences) sequence->answerer = Sequence::Answerer::kBase;
    return run_pending(step, &Sequence::base, report);
  }
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_exact_strategy() { return std::make_unique<ExactStrategy>(); }

}  // namespace kvcast

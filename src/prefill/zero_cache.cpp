#include <fmt/format.h>

#include <algorithm>

#include "prefill/strategy.h"

namespace kvcast {
namespace {

/// The control for `kv-prediction:tail=N`: nothing stands where the forecast would, so the base
/// answers from the last tokens, at their right positions, alone. What a forecast gains is what it
/// is better than this.
class ZeroCacheStrategy final : public PrefillStrategy {
 public:
  explicit ZeroCacheStrategy(int64_t tail) : tail_(tail) {}

  [[nodiscard]] std::string spec() const override {
    return tail_ == 1 ? "zero-cache" : fmt::format("zero-cache:tail={}", tail_);
  }
  [[nodiscard]] bool needs_bundle() const override { return false; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return exact_cost(models.base, std::min(tail_, prompt_tokens));
  }
  [[nodiscard]] double paper_reduction(const ModelPair& /*models*/,
                                       int64_t prompt_tokens) const override {
    return static_cast<double>(prompt_tokens) / static_cast<double>(std::min(tail_, prompt_tokens));
  }

  [[nodiscard]] CacheUse cache_use() const override { return {}; }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    for (Sequence* sequence : step.sequences) {
      sequence->answerer = Sequence::Answerer::kBase;
      const int64_t start = std::ssize(sequence->tokens) - tail_;
      KVCache& cache = sequence->base;
      cache.advance_inexact(std::max<int64_t>(start - cache.next_position(), 0));
    }
    return run_pending(step, &Sequence::base, report);
  }

  int64_t tail_;
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_zero_cache_strategy(int64_t tail) {
  return std::make_unique<ZeroCacheStrategy>(tail);
}

}  // namespace kvcast

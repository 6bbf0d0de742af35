#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/stopwatch.h"
#include "prefill/pruned_rows.h"

namespace kvcast {
namespace {

/// RP(r) of method §8: the base reads a random share of the prompt and the last token. What is
/// drawn depends on the tokens alone, so a batch gives what one by one gives.
class RandomStrategy final : public PrefillStrategy {
 public:
  explicit RandomStrategy(double keep) : keep_(keep) {}

  [[nodiscard]] std::string spec() const override { return fmt::format("random:{}", keep_); }
  [[nodiscard]] bool needs_bundle() const override { return false; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return exact_cost(models.base, kept_count(prompt_tokens, keep_));
  }
  [[nodiscard]] double paper_reduction(const ModelPair& /*models*/,
                                       int64_t /*prompt_tokens*/) const override {
    return 1 / keep_;
  }

  [[nodiscard]] CacheUse cache_use() const override { return {}; }

 private:
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    const Stopwatch watch;
    for (Sequence* sequence : step.sequences) sequence->answerer = Sequence::Answerer::kBase;
    auto positions = pending_positions(step.sequences);
    for (size_t s = 0; s < step.sequences.size(); ++s)
      draw(step.sequences[s]->tokens, positions[s]);
    PrunedRows rows(*step.models.base, step.sequences, std::move(positions), step.workspace.base);
    report.computed_tokens += rows.total_rows();
    report.stopped = !rows.read(step.stop, step.logits);
    report.base_ms += watch.elapsed_ms();
    return PrefillState::kDone;
  }

  /// Leaves the last position and a random choice of the others.
  void draw(const std::vector<int32_t>& tokens, std::vector<int64_t>& positions) const {
    const auto count = static_cast<size_t>(kept_count(std::ssize(positions), keep_));
    std::seed_seq seed(tokens.begin(), tokens.end());
    std::mt19937_64 random(seed);
    const size_t others = positions.size() - 1;
    for (size_t i = 0; i + 1 < count; ++i) {  // the first steps of a Fisher-Yates shuffle
      std::swap(positions[i], positions[i + random() % (others - i)]);
    }
    positions[count - 1] = static_cast<int64_t>(tokens.size()) - 1;
    positions.resize(count);
    std::ranges::sort(positions);
  }

  double keep_;
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_random_strategy(double keep) {
  return std::make_unique<RandomStrategy>(keep);
}

}  // namespace kvcast

#include <fmt/format.h>

#include <algorithm>

#include "prefill/strategy.h"
#include "prefill/tail_run.h"
#include "prefill/unread_tokens.h"

namespace kvcast {
namespace {

/// The first token on a budget: exact if it fits on this machine for this prompt, else the forecast
/// with as long an exact tail as fits.
class AutoStrategy final : public PrefillStrategy {
 public:
  explicit AutoStrategy(int64_t ttft_ms) : ttft_ms_(ttft_ms) {}

  [[nodiscard]] std::string spec() const override { return fmt::format("auto:ttft={}", ttft_ms_); }
  [[nodiscard]] bool needs_bundle() const override { return false; }
  [[nodiscard]] PrefillCost cost(const ModelPair& models, int64_t prompt_tokens) const override {
    return exact_cost(models.base, prompt_tokens);  // at most
  }
  [[nodiscard]] double paper_reduction(const ModelPair& /*models*/,
                                       int64_t /*prompt_tokens*/) const override {
    return 1;
  }
  [[nodiscard]] CacheUse cache_use() const override {
    return {.family = CacheFamily::kHealing, .auxiliary_reads = true};
  }
  [[nodiscard]] int64_t reusable_rows(int64_t prompt_tokens) const override {
    return prompt_tokens - 1;
  }
  [[nodiscard]] int64_t refine_rows() const override { return kRefineAuto; }

  void measure(const Models& models) const override { models.prefill_pace->measure_once(models); }
  [[nodiscard]] std::optional<PrefillChoice> choose(const Models& models,
                                                    Sequence& sequence) const override {
    measure(models);
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    const int64_t exact_rows = sequence.base.exact_rows();
    const PrefillPace& pace = *models.prefill_pace;
    const double budget_ms = static_cast<double>(ttft_ms_) / pace.margin();
    const double exact_ms =
        pace.overhead_ms() + estimate(models, {.start = exact_rows, .rows = tokens - exact_rows});
    if (exact_ms <= budget_ms || !models.is_bundle()) {
      sequence.base.truncate(exact_rows);  // what is not exact is read again
      return PrefillChoice{make_exact_strategy(), exact_ms};
    }
    const int64_t start = sequence.base.next_position();
    PrefillChoice chosen;
    for (const int64_t tail : kTails) {
      if (tail > 1 && tail >= tokens - start) continue;
      const double ms = pace.overhead_ms() + forecast_ms(models, sequence, tail);
      chosen = {make_kv_prediction_strategy({.tail = tail, .refine = kRefineAuto}), ms};
      if (ms <= budget_ms) break;
    }
    return chosen;
  }

 private:
  using Kind = PrefillWork::Kind;
  static constexpr int64_t kTails[] = {1024, 512, 256, 128, 64, 32, 16, 1};

  static double estimate(const Models& models, const PrefillWork& work) {
    return models.prefill_pace->estimate_ms(models, work).value_or(0);
  }
  /// The auxiliary reads what it has not read and what it forecasts; a short tail is carried along,
  /// a longer one runs afterwards, over all that is there.
  static double forecast_ms(const Models& models, const Sequence& sequence, int64_t tail) {
    const auto begin = static_cast<int64_t>(sequence.tokens.size()) - tail;
    const int64_t known = known_rows(models, sequence, models.plan.auxiliary_layers());
    if (tail <= TailRun::kMostRows) {
      return estimate(
          models,
          {.kind = Kind::kForecastWithTail, .start = known, .rows = begin - known, .tail = tail});
    }
    return estimate(models, {.kind = Kind::kForecast, .start = known, .rows = begin - known}) +
           estimate(models, {.start = begin, .rows = tail});
  }

  /// For callers that do not choose() first: everything at once.
  PrefillState next(const PrefillStep& step, PrefillReport& report) const override {
    for (size_t s = 0; s < step.sequences.size(); ++s) {
      Sequence* const one[] = {step.sequences[s]};
      const auto chosen = choose(step.models, *one[0]);
      const int64_t vocab = step.models.base->config().vocab_size;
      report.add(chosen->strategy->prefill(step.models, one,
                                           step.logits + static_cast<int64_t>(s) * vocab,
                                           step.workspace, step.stop));
      if (report.stopped) break;
    }
    return PrefillState::kDone;
  }

  int64_t ttft_ms_;
};

}  // namespace

std::unique_ptr<PrefillStrategy> make_auto_strategy(int64_t ttft_ms) {
  return std::make_unique<AutoStrategy>(ttft_ms);
}

}  // namespace kvcast

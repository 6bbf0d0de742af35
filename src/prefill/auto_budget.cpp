#include <fmt/format.h>

#include <algorithm>

#include "prefill/strategy.h"

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

  [[nodiscard]] std::optional<PrefillChoice> choose(const Models& models,
                                                    Sequence& sequence) const override {
    models.prefill_pace->measure_once(models);
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    const int64_t exact_rows = sequence.base.exact_rows();
    const double exact_ms = estimate(models, Kind::kExact, exact_rows, tokens - exact_rows);
    if (exact_ms <= static_cast<double>(ttft_ms_) || !models.is_bundle()) {
      sequence.base.truncate(exact_rows);  // what is not exact is read again
      return PrefillChoice{make_exact_strategy(), exact_ms};
    }
    const int64_t start = sequence.base.next_position();
    PrefillChoice chosen;
    for (const int64_t tail : kTails) {
      if (tail > 1 && tail >= tokens - start) continue;
      const double ms = forecast_ms(models, sequence, tail);
      chosen = {make_kv_prediction_strategy({.tail = tail, .refine = kRefineAuto}), ms};
      if (ms <= static_cast<double>(ttft_ms_)) break;
    }
    return chosen;
  }

 private:
  using Kind = PrefillPace::Kind;
  static constexpr int64_t kTails[] = {1024, 512, 256, 128, 64, 32, 16, 1};

  static double estimate(const Models& models, Kind kind, int64_t start, int64_t rows) {
    return models.prefill_pace->estimate_ms(models, kind, start, rows).value_or(0);
  }
  /// The auxiliary reads what it has not read and what it forecasts; the base's tail waits for the
  /// same weights as the one row that a forecast's time includes.
  static double forecast_ms(const Models& models, const Sequence& sequence, int64_t tail) {
    const auto tokens = static_cast<int64_t>(sequence.tokens.size());
    const int64_t known = models.auxiliary ? std::min(sequence.base.next_position(),
                                                      sequence.auxiliary.next_position())
                                           : sequence.base.next_position();
    const double tail_ms = estimate(models, Kind::kExact, tokens - tail, tail) -
                           estimate(models, Kind::kExact, tokens - 1, 1);
    return estimate(models, Kind::kForecast, known, tokens - tail - known) + std::max(0.0, tail_ms);
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

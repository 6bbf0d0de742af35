// What `auto:ttft=` takes prefills to last on machines that are made up.
#include "prefill/prefill_pace.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "model/flops.h"
#include "prefill/strategy.h"
#include "support/small_openelm.h"

namespace kvcast {
namespace {

using Kind = PrefillWork::Kind;

/// A machine with a speed for products that rises with their rows, and another for attention.
class MadeUp : public testing::Test {
 protected:
  MadeUp() {
    const ModelConfig base = small_openelm(6, 96, 4000), auxiliary = small_openelm(3, 64, 4000);
    models_ = random_models(base, &auxiliary, canonical_layer_map(6, 3), WeightType::kF32, 1);
  }

  /// Milliseconds of exact rows, counted here without PrefillPace's help: a row's products, and
  /// 4 operations for each element of a query and key that it attends to.
  [[nodiscard]] double exact_ms(int64_t start, int64_t rows) const {
    const ModelConfig& base = models_.base->config();
    const PrefillCost whole = exact_cost(base, start + rows), before = exact_cost(base, start);
    const double attention = whole.attention - (start > 0 ? before.attention : 0);
    double products = whole.total() - whole.attention;
    if (start > 0) products -= before.total() - before.attention - before.lm_head;
    return products / speed(rows) + attention / attention_speed_;
  }
  [[nodiscard]] static double speed(int64_t rows) {
    return 1e5 * static_cast<double>(std::min<int64_t>(rows, 48));
  }
  void observe_exact(int64_t start, int64_t rows, double noise = 1) {
    pace_.observe(models_, {.start = start, .rows = rows}, exact_ms(start, rows) * noise);
  }
  double off(int64_t start, int64_t rows) {
    return *pace_.estimate_ms(models_, {.start = start, .rows = rows}) / exact_ms(start, rows) - 1;
  }

  Models models_;
  PrefillPace pace_;
  double attention_speed_ = 1e6;  // a fifth of what many rows' products reach
};

TEST_F(MadeUp, KnowsNothingAtFirst) {
  EXPECT_FALSE(pace_.estimate_ms(models_, {.rows = 16}));
  EXPECT_EQ(pace_.estimate_ms(models_, {.rows = 0}), 0);
  EXPECT_EQ(pace_.overhead_ms(), 0);
}

TEST_F(MadeUp, OneRowSaysSomethingToo) {
  pace_.observe(models_, {.rows = 1}, 5);
  EXPECT_NEAR(*pace_.estimate_ms(models_, {.rows = 1}), 5, 1e-6);
}

TEST_F(MadeUp, WhatTheModelsCanDoIsMeasured) {
  const PrefillWork forecast{.kind = Kind::kForecast, .rows = 100, .tail = 64};
  const PrefillWork carried{.kind = Kind::kForecastWithTail, .rows = 100, .tail = 16};
  const Models plain =
      random_models(small_openelm(6, 96, 4000), nullptr, ForecastPlan(), WeightType::kF32, 1);
  for (const Models* models : std::array<const Models*, 2>{&models_, &plain}) {
    PrefillPace& pace = *models->prefill_pace;
    pace.measure_once(*models);
    EXPECT_TRUE(pace.estimate_ms(*models, {.rows = 100}));
    EXPECT_EQ(pace.estimate_ms(*models, forecast).has_value(), models->is_bundle());
    EXPECT_EQ(pace.estimate_ms(*models, carried).has_value(), models->is_bundle());
  }
}

TEST_F(MadeUp, AttentionIsATermOfItsOwn) {
  // A conversation's turns are behind a cache, prompts are not: so both terms are seen.
  std::mt19937_64 random(3);
  for (int i = 0; i < 300; ++i) {
    const auto rows = static_cast<int64_t>(std::exp2(4 + 0.02 * static_cast<double>(i)));
    observe_exact(i % 2 == 0 ? 0 : static_cast<int64_t>(random() % 2000),
                  std::min<int64_t>(rows, 1000));
  }
  // An exact tail behind 3,000 rows, which nobody has seen.
  EXPECT_NEAR(off(3000, 64), 0, 0.1);
  EXPECT_NEAR(off(3000, 256), 0, 0.1);
  EXPECT_NEAR(off(0, 700), 0, 0.1);
}

TEST_F(MadeUp, EstimatesStayWithinTheNoise) {
  for (int i = 0; i < 8; ++i) {  // as a conversation's first turns
    for (const int64_t rows : {1, 8, 64, 256}) observe_exact(0, rows);
    observe_exact(2000, 32);
  }
  std::mt19937_64 random(5);
  std::normal_distribution<double> noise(0, 0.06);
  int within = 0;
  constexpr int kPrompts = 400;
  for (int i = 0; i < kPrompts; ++i) {
    const auto rows =
        static_cast<int64_t>(16 * std::exp2(7 * static_cast<double>(random() % 1000) / 1000));
    const double noisy = std::exp(noise(random));
    if (i >= 40 && std::abs((off(0, rows) + 1) / noisy - 1) <= 0.15) ++within;
    observe_exact(0, rows, noisy);
  }
  EXPECT_GE(within, (kPrompts - 40) * 9 / 10);
}

TEST_F(MadeUp, FollowsAMachineThatBecomesSlower) {
  for (int i = 0; i < 10; ++i) observe_exact(0, 256);
  for (int i = 0; i < 20; ++i) observe_exact(0, 256, 1.5);
  EXPECT_NEAR(off(0, 256), 0.5, 0.05);
}

TEST_F(MadeUp, OnePromptThatWasInterruptedSaysLittle) {
  for (int i = 0; i < 10; ++i) observe_exact(0, 256);
  observe_exact(0, 256, 100);
  EXPECT_LT(off(0, 256), 0.25);
}

TEST_F(MadeUp, TheLeastOverheadOfTheLastCounts) {
  for (const double ms : {900.0, 0.5, 0.4, 0.6}) pace_.observe_overhead(ms);
  EXPECT_DOUBLE_EQ(pace_.overhead_ms(), 0.4);
  for (int i = 0; i < 4; ++i) pace_.observe_overhead(0.7);
  EXPECT_DOUBLE_EQ(pace_.overhead_ms(), 0.7);
}

TEST_F(MadeUp, TheMarginIsWhatEstimatesWereOffBy) {
  for (int i = 0; i < 200; ++i) pace_.observe_error(100, 100);
  EXPECT_NEAR(pace_.margin(), 1, 0.01);
  for (int i = 0; i < 200; ++i) pace_.observe_error(100, i % 2 == 0 ? 108 : 92);
  EXPECT_NEAR(pace_.margin(), 1.17, 0.03);
  for (int i = 0; i < 200; ++i) pace_.observe_error(100, 300);
  EXPECT_LE(pace_.margin(), 1.3);  // beyond that budgets would be of no use
}

/// The report of a prefill of a prompt on an empty cache.
PrefillReport report_of(int64_t predicted, int64_t computed, double forecast_ms, double base_ms) {
  PrefillReport report;
  report.predicted_tokens = predicted;
  report.computed_tokens = computed;
  report.auxiliary_ms = forecast_ms;
  report.base_ms = base_ms;
  return report;
}

TEST_F(MadeUp, ALongTailIsObservedAsExactRowsAndAShortOneWithItsForecast) {
  PrefillPace& pace = *models_.prefill_pace;
  const auto strategy = make_kv_prediction_strategy({.tail = 64});
  const PrefillWork forecast{.kind = Kind::kForecast, .rows = 448};
  const PrefillWork tail{.start = 448, .rows = 64};
  const PrefillWork carried{.kind = Kind::kForecastWithTail, .rows = 496, .tail = 16};
  observe_work(*strategy, models_, {}, report_of(448, 64, 40, 60));
  EXPECT_NEAR(*pace.estimate_ms(models_, forecast), 40, 1e-6);
  EXPECT_NEAR(*pace.estimate_ms(models_, tail), 60, 1e-6);
  EXPECT_FALSE(pace.estimate_ms(models_, carried));
  observe_work(*make_kv_prediction_strategy({.tail = 16}), models_, {}, report_of(496, 16, 45, 5));
  EXPECT_NEAR(*pace.estimate_ms(models_, carried), 50, 1e-6);
  EXPECT_NEAR(*pace.estimate_ms(models_, tail), 60, 1e-6);
}

TEST_F(MadeUp, FirstPositionsThatAreLeftToTheBaseAreNoPartOfTheTail) {
  models_.plan.sink_tokens = 4;
  observe_work(*make_kv_prediction_strategy({.tail = 16}), models_, {}, report_of(492, 20, 45, 5));
  const PrefillWork carried{.kind = Kind::kForecastWithTail, .rows = 496, .tail = 16};
  EXPECT_NEAR(*models_.prefill_pace->estimate_ms(models_, carried), 50, 1e-6);
}

TEST_F(MadeUp, FirstPositionsOfAnEarlierTurnAreNotReadAgain) {
  models_.plan.sink_tokens = 4;
  observe_work(*make_kv_prediction_strategy({.tail = 16}), models_, {.base = 100, .known = 100},
               report_of(384, 16, 45, 5));
  const PrefillWork carried{.kind = Kind::kForecastWithTail, .start = 100, .rows = 384, .tail = 16};
  EXPECT_NEAR(*models_.prefill_pace->estimate_ms(models_, carried), 50, 1e-6);
}

}  // namespace
}  // namespace kvcast

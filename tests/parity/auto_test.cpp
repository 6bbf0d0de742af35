// The first token on a budget.
#include <gtest/gtest.h>

#include "prefill/strategy.h"
#include "runtime/model_impl.h"
#include "runtime/scheduler_rounds.h"
#include "server/tiny_bundle.h"
#include "support/small_openelm.h"

namespace kvcast {
namespace {

/// A machine on which prompts take what is said here, at any length.
class Budget : public testing::Test {
 protected:
  Budget() {
    const ModelConfig base = small_openelm(6, 96, 4000), auxiliary = small_openelm(3, 64, 4000);
    models_ = random_models(base, &auxiliary, canonical_layer_map(6, 3), WeightType::kF32, 1);
    models_.prefill_pace->measure_once(models_);
    using Kind = PrefillWork::Kind;
    for (int i = 0; i < 600; ++i) {  // outweighs what was measured, however busy the machine was
      for (int64_t rows = 1; rows <= 2048; rows *= 2) {
        const auto ms = static_cast<double>(rows);
        const auto took = [&](Kind kind, int64_t tail, double of_work) {
          models_.prefill_pace->observe(models_, {.kind = kind, .rows = rows, .tail = tail},
                                        of_work);
        };
        took(Kind::kExact, 1, 10 + ms);
        took(Kind::kForecast, 1, 10 + ms / 10);
        took(Kind::kForecastWithTail, 16, 10 + ms / 10);
      }
    }
    for (int i = 0; i < 4; ++i) models_.prefill_pace->observe_overhead(2);
  }
  PrefillChoice choose(const std::string& spec, size_t tokens) {
    Sequence sequence(models_);
    sequence.tokens.assign(tokens, 5);
    return std::move(*(*PrefillStrategy::parse(spec))->choose(models_, sequence));
  }
  Models models_;
};

TEST_F(Budget, ExactWhereItFits) {
  const PrefillChoice chosen = choose("auto:ttft=300", 250);
  EXPECT_EQ(chosen.strategy->spec(), "exact");
  EXPECT_NEAR(chosen.estimated_ms, 260, 40);
}

TEST_F(Budget, ElseTheForecastWithAsLongATailAsFits) {
  // 1,000 tokens: exact 1,010 ms; forecast 97 ms and 138 of a tail of 128, 84 and 266 of 256, 59
  // and 522 of 512.
  EXPECT_EQ(choose("auto:ttft=300", 1000).strategy->spec(), "kv-prediction:tail=128,refine=auto");
  EXPECT_EQ(choose("auto:ttft=500", 1000).strategy->spec(), "kv-prediction:tail=256,refine=auto");
  EXPECT_EQ(choose("auto:ttft=1", 1000).strategy->spec(), "kv-prediction:refine=auto");
  EXPECT_EQ(choose("auto:ttft=2000", 1000).strategy->spec(), "exact");
}

TEST_F(Budget, ExactRowsThatAreThereCount) {
  Sequence sequence(models_);
  sequence.tokens.assign(900, 5);
  Sequence* const one[] = {&sequence};
  std::vector<float> logits(kSmallVocab);
  PrefillWorkspace workspace;
  make_exact_strategy()->prefill(models_, one, logits.data(), workspace, {});
  sequence.tokens.assign(1000, 5);
  const auto chosen = (*PrefillStrategy::parse("auto:ttft=300"))->choose(models_, sequence);
  EXPECT_EQ(chosen->strategy->spec(), "exact");
}

TEST(DefaultBudget, IsMeasuredBeforeTheFirstRequest) {
  const TinyBundle bundle;
  const auto model = Model::load(bundle.path(), {.dtype = Dtype::kF32, .threads = 1});
  ASSERT_TRUE(model) << model.error().message;
  const Models& models = (*model)->impl().models;
  ASSERT_FALSE(models.prefill_pace->estimate_ms(models, {.rows = 16}));
  SchedulerOptions options;
  options.default_prefill = "auto:ttft=300";
  ASSERT_TRUE(SchedulerRounds::make(*model, options));
  EXPECT_TRUE(models.prefill_pace->estimate_ms(models, {.rows = 16}));
}

TEST(BudgetSpec, NamesWhatIsWrong) {
  EXPECT_EQ((*PrefillStrategy::parse("auto:ttft=300"))->spec(), "auto:ttft=300");
  for (const char* spec : {"auto", "auto:ttft=", "auto:ttft=0", "auto:ttft=x", "auto:tail=3"}) {
    EXPECT_FALSE(PrefillStrategy::parse(spec)) << spec;
  }
}

}  // namespace
}  // namespace kvcast

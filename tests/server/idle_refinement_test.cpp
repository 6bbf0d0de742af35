// What the scheduler refines while nothing is asked, and that nobody waits for it, round by round
// on one thread.
#include <gtest/gtest.h>

#include "kvcast/session.h"
#include "runtime/model_impl.h"
#include "runtime/scheduler_rounds.h"
#include "server/scheduler_recorder.h"
#include "server/tiny_bundle.h"

namespace kvcast {
namespace {

constexpr int64_t kChunk = 64;  // rows refined at a time, refine.cpp
constexpr int64_t kPromptTokens = 200;

class IdleRefinement : public ::testing::Test {
 protected:
  void SetUp() override {
    auto model = Model::load(bundle_.path(), {.dtype = Dtype::kF32, .threads = 1});
    ASSERT_TRUE(model) << model.error().message;
    model_ = *model;
    SchedulerOptions options;
    options.idle_chunk_tokens = 256;  // a prompt in one round
    auto rounds = SchedulerRounds::make(model_, options);
    ASSERT_TRUE(rounds) << rounds.error().message;
    rounds_ = std::move(*rounds);
    for (int64_t i = 0; i < kPromptTokens; ++i) {
      prompt_.push_back(static_cast<int32_t>(3 + i * 31 % 390));
    }
  }

  std::shared_ptr<Recorder> submit(std::vector<int32_t> prompt, std::string prefill,
                                   int64_t max_tokens = 1, int64_t choices = 1) {
    EngineRequest request;
    request.prompt = std::move(prompt);
    request.prefill = std::move(prefill);
    request.max_tokens = max_tokens;
    request.choices = choices;
    request.ignore_end_of_text = true;
    auto recorder = std::make_shared<Recorder>(choices);
    const auto ticket = rounds_->submit(std::move(request), recorder);
    EXPECT_TRUE(ticket) << ticket.error().message;
    return recorder;
  }
  /// Leaves a prefix that is all forecast.
  void leave_a_forecast() {
    const auto recorder = submit(prompt_, "kv-prediction:refine=auto");
    while (!rounds_->idle()) rounds_->round();
    ASSERT_TRUE(recorder->over && !recorder->error);
    ASSERT_EQ(stored_exactly(), 0);
  }
  int64_t stored_exactly() {
    Sequence sequence(model_->impl().models);
    sequence.tokens = prompt_;
    return rounds_->pool().take(CacheFamily::kExact, kPromptTokens - 1, sequence);
  }

  TinyBundle bundle_;
  std::shared_ptr<const Model> model_;
  std::unique_ptr<SchedulerRounds> rounds_;
  std::vector<int32_t> prompt_;
};

TEST_F(IdleRefinement, GoesOnAChunkARoundUntilAPrefixIsExact) {
  leave_a_forecast();
  int64_t rounds = 0;
  for (int64_t before = 0; before < kPromptTokens - 1; ++rounds) {
    ASSERT_LT(rounds, 10);
    rounds_->round();
    const int64_t now = stored_exactly();
    EXPECT_GT(now, before);
    EXPECT_LE(now, before + kChunk);
    before = now;
  }
  EXPECT_EQ(rounds, (kPromptTokens - 1 + kChunk - 1) / kChunk);
}

TEST_F(IdleRefinement, ARequestWaitsForTheChunkThatIsRunningAtMost) {
  leave_a_forecast();
  rounds_->round();
  const int64_t refined = stored_exactly();
  ASSERT_GT(refined, 0);
  ASSERT_LT(refined, kPromptTokens - 1);
  const auto recorder = submit({5, 6, 7, 8}, "exact");
  rounds_->round();
  EXPECT_TRUE(recorder->over);
  EXPECT_FALSE(recorder->error);
  EXPECT_EQ(stored_exactly(), refined);
  rounds_->round();  // nothing is asked any more
  EXPECT_GT(stored_exactly(), refined);
}

TEST_F(IdleRefinement, WhatWasRefinedBesideAnswersIsReported) {
  constexpr int64_t kTokens = 40;
  Session session(model_);
  const auto alone = session.generate(
      prompt_,
      {.prefill = "kv-prediction:refine=16", .max_tokens = kTokens, .ignore_end_of_text = true});
  ASSERT_TRUE(alone && alone->timings.refinement);
  const Refinement& expected = *alone->timings.refinement;
  ASSERT_GE(expected.refined_rows, kPromptTokens - 1);
  for (const int64_t choices : {1, 2}) {
    const auto recorder = submit(prompt_, "kv-prediction:refine=16", kTokens, choices);
    while (!rounds_->idle()) rounds_->round();
    ASSERT_TRUE(recorder->over && !recorder->error);
    ASSERT_TRUE(recorder->timings.refinement);
    const Refinement& reported = *recorder->timings.refinement;
    EXPECT_GE(reported.refined_rows, expected.refined_rows);
    EXPECT_GE(reported.exact_after_tokens, 0);
    EXPECT_EQ(reported.compared_tokens, choices * kTokens);
    EXPECT_EQ(reported.agreed_tokens, static_cast<double>(choices) * expected.agreed_tokens);
    rounds_->pool().shrink_to(0);
  }
  const auto exact = submit(prompt_, "exact", kTokens);
  while (!rounds_->idle()) rounds_->round();
  ASSERT_TRUE(exact->over && !exact->error);
  EXPECT_FALSE(exact->timings.refinement);
  // Over the exact prefix that it left nothing is forecast.
  const auto healed = submit(prompt_, "kv-prediction:refine=16", kTokens);
  while (!rounds_->idle()) rounds_->round();
  ASSERT_TRUE(healed->over && !healed->error);
  ASSERT_TRUE(healed->timings.refinement);
  EXPECT_EQ(healed->timings.refinement->exact_after_tokens, 0);
  EXPECT_EQ(healed->timings.refinement->refined_rows, 0);
}

}  // namespace
}  // namespace kvcast

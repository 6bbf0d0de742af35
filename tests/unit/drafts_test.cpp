#include <gtest/gtest.h>

#include <numeric>

#include "kvcast/session.h"
#include "runtime/draft_choice.h"

namespace kvcast {
namespace {

std::vector<int32_t> tokens_of(std::span<const Guess> guesses) {
  std::vector<int32_t> tokens;
  for (const Guess& guess : guesses) tokens.push_back(guess.token);
  return tokens;
}

/// Costs of steps with 1 to 40 rows, each row beyond the first `row` of a step with one.
void teach(StepCosts& costs, double row) {
  for (int trial = 0; trial < 4; ++trial) {
    for (int64_t rows = 1; rows <= 40; ++rows) {
      costs.observe(rows, 10 * (1 + row * static_cast<double>(rows - 1)));
    }
  }
}

TEST(Drafter, GuessesWhatFollowedBefore) {
  Drafter drafter(8);
  std::vector<int32_t> text = {5, 6, 7, 8, 9, 1, 5, 6};
  drafter.follow(text);
  EXPECT_EQ(tokens_of(drafter.guesses(3)), (std::vector<int32_t>{7, 8, 9}));
  text.push_back(7);
  drafter.follow(text);
  EXPECT_EQ(tokens_of(drafter.guesses(3)), (std::vector<int32_t>{8, 9, 1}));
  text.push_back(2);  // otherwise
  drafter.follow(text);
  EXPECT_TRUE(drafter.guesses(3).empty());
}

TEST(Drafter, WhatWasTakenBackIsNoPartOfIt) {
  Drafter drafter(8);
  std::vector<int32_t> text = {5, 6, 7, 1, 5, 6, 7};
  drafter.follow(text);
  text.resize(5);
  drafter.take_back(5);
  EXPECT_EQ(tokens_of(drafter.guesses(2)), (std::vector<int32_t>{6, 7}));
  text.push_back(9);
  drafter.follow(text);
  EXPECT_TRUE(drafter.guesses(2).empty());
}

TEST(Drafter, ProbabilitiesFallAlongADraftAndFollowExperience) {
  std::vector<int32_t> again, never;
  for (int32_t i = 0; i < 400; ++i) again.push_back(i % 40);
  // Pairs of tokens that return, but never go on in the same way.
  for (int32_t i = 0; i < 400; ++i) {
    for (const int32_t token : {1, 2, 100 + i}) never.push_back(token);
  }
  Drafter good(kDraftsAuto), bad(kDraftsAuto);
  for (Drafter* drafter : {&good, &bad}) {
    const auto& text = drafter == &good ? again : never;
    drafter->follow(std::span(text).first(3));
    drafter->follow(text);
  }
  bad.follow([&] {
    never.insert(never.end(), {1, 2});
    return std::span<const int32_t>(never);
  }());
  const auto sure = good.guesses(8);
  ASSERT_EQ(sure.size(), 8);
  EXPECT_GT(sure.front().probability, 0.9);
  for (size_t i = 1; i < sure.size(); ++i) EXPECT_LE(sure[i].probability, sure[i - 1].probability);
  ASSERT_FALSE(bad.guesses(1).empty());
  EXPECT_LT(bad.guesses(1).front().probability, 0.1);
}

TEST(Drafter, TrustsAnAuxiliaryAsFarAsItWasRight) {
  Drafter drafter(kDraftsAuto);
  const double expected = drafter.trust(), sure = drafter.trust(0.99), unsure = drafter.trust(0.2);
  EXPECT_GT(sure, expected);
  EXPECT_LT(unsure, expected);
  for (int i = 0; i < 40; ++i) {
    drafter.judge(0.99, false);
    drafter.judge(0.2, true);
  }
  EXPECT_LT(drafter.trust(0.99), 0.2);
  EXPECT_GT(drafter.trust(0.2), 0.8);
  EXPECT_NEAR(drafter.trust(), 0.5, 0.1);
  for (int i = 0; i < 200; ++i) drafter.pass();  // long ago
  EXPECT_NEAR(drafter.trust(), expected, 0.01);
}

TEST(StepCosts, TimesAreThoseSeenAndStraightBetweenThem) {
  StepCosts costs;
  EXPECT_FALSE(costs.ms(1));
  for (int i = 0; i < 3; ++i) {
    costs.observe(2, i == 0 ? 50 : 10);
    costs.observe(4, 14);
  }
  EXPECT_DOUBLE_EQ(costs.ms(2).value_or(0), 10);
  EXPECT_DOUBLE_EQ(costs.ms(3).value_or(0), 12);
  EXPECT_FALSE(costs.ms(1));
  EXPECT_FALSE(costs.ms(5));
}

TEST(StepCosts, AreThoseSeenAndStraightBetweenThem) {
  StepCosts costs;
  EXPECT_TRUE(costs.relative(1, 4).empty());
  for (int i = 0; i < 3; ++i) {
    costs.observe(1, i == 0 ? 50 : 10);  // the first was disturbed
    costs.observe(5, 14);
  }
  const auto relative = costs.relative(1, 6);
  ASSERT_EQ(relative.size(), 7);
  EXPECT_DOUBLE_EQ(relative[0], 1);
  EXPECT_NEAR(relative[2], 1.2, 1e-9);
  EXPECT_NEAR(relative[4], 1.4, 1e-9);
  EXPECT_GT(relative[6], 1.4);  // not seen yet: hoped for
  EXPECT_LT(relative[6], 1.6);
}

TEST(StepCosts, WhatWasNotSeenIsBetweenItsNeighbours) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) {
    costs.observe(4, 10);
    costs.observe(8, 14);
  }
  const auto relative = costs.relative(6, 2);
  ASSERT_EQ(relative.size(), 3);
  EXPECT_NEAR(relative[2], 14.0 / 12, 1e-9);
  EXPECT_TRUE(costs.relative(3, 2).empty());
  EXPECT_TRUE(costs.relative(9, 2).empty());
}

TEST(StepCosts, EachThatWasSeenIsACorner) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) {
    costs.observe(1, 10);
    costs.observe(3, 14);
    costs.observe(7, 18);
  }
  const auto relative = costs.relative(1, 6);
  ASSERT_EQ(relative.size(), 7);
  EXPECT_NEAR(relative[1], 1.2, 1e-9);
  EXPECT_NEAR(relative[2], 1.4, 1e-9);
  EXPECT_NEAR(relative[4], 1.6, 1e-9);
  EXPECT_NEAR(relative[6], 1.8, 1e-9);
}

TEST(StepCosts, OneDisturbedTimeDoesNotDecide) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) costs.observe(1, 10);
  costs.observe(3, 500);
  EXPECT_LT(costs.relative(1, 2).back(), 1.2);
  costs.observe(3, 500);
  costs.observe(3, 500);
  EXPECT_GT(costs.relative(1, 2).back(), 40);
}

TEST(StepCosts, OldTimesAreForgotten) {
  StepCosts costs;
  for (int i = 0; i < 4; ++i) costs.observe(3, 500);
  for (int i = 0; i < 300; ++i) costs.observe(1, 10);
  EXPECT_LT(costs.relative(1, 2).back(), 1.2);
}

/// Guesses that came true 200 times.
Drafter certain() {
  Drafter drafter(kDraftsAuto);
  std::vector<int32_t> text;
  for (int32_t i = 0; i < 240; ++i) text.push_back(i % 40);
  drafter.follow(std::span(text).first(3));
  drafter.follow(text);
  return drafter;
}

TEST(ChooseDrafts, AsManyAsPayByWhatRowsCost) {
  const auto drafts = [](double row_cost) {
    Drafter drafter = certain();
    StepCosts costs;
    teach(costs, row_cost);
    const Draftable one[] = {{&drafter, 100}};
    return std::ssize(choose_drafts(costs, one, 1)[0]);
  };
  EXPECT_EQ(drafts(0.01), 16);
  EXPECT_GT(drafts(0.3), 2);
  EXPECT_EQ(drafts(1.1), 0);
}

TEST(ChooseDrafts, NoneBeforeAStepWithoutThemWasSeen) {
  Drafter drafter = certain();
  const Draftable one[] = {{&drafter, 100}};
  EXPECT_TRUE(choose_drafts(StepCosts(), one, 1)[0].empty());
}

TEST(ChooseDrafts, NoMoreThanTheAnswerMayHave) {
  StepCosts costs;
  teach(costs, 0.001);
  Drafter automatic = certain(), fixed(9);
  std::vector<int32_t> text;
  for (int32_t i = 0; i < 90; ++i) text.push_back(i % 40);
  fixed.follow(text);
  for (Drafter* drafter : {&automatic, &fixed}) {
    for (const int64_t most : {0, 1, 3}) {
      const Draftable one[] = {{drafter, most}};
      EXPECT_EQ(std::ssize(choose_drafts(costs, one, 1)[0]), most);
    }
  }
  const Draftable one[] = {{&fixed, 100}};
  EXPECT_EQ(std::ssize(choose_drafts(costs, one, 1)[0]), 9);
}

TEST(ChooseDrafts, TheMostProbableOfAllAnswersAndNoneForThoseWithout) {
  StepCosts costs;
  teach(costs, 0.35);
  Drafter sure = certain();
  Drafter unsure(kDraftsAuto);
  const std::vector<int32_t> once = {1, 2, 3, 1};
  unsure.follow(once);
  const Draftable three[] = {{&unsure, 100}, {nullptr, 100}, {&sure, 100}};
  const auto chosen = choose_drafts(costs, three, 3);
  EXPECT_TRUE(chosen[0].empty());
  EXPECT_TRUE(chosen[1].empty());
  ASSERT_FALSE(chosen[2].empty());
  for (size_t i = 0; i < chosen[2].size(); ++i) {
    EXPECT_EQ(chosen[2][i], static_cast<int32_t>(i));  // the text ended with 39
  }
}

TEST(ChooseDrafts, OfManyFixedNumbersAStepHoldsTheMostRows) {
  std::vector<Drafter> drafters(10, Drafter(16));
  std::vector<Draftable> answers;
  std::vector<int32_t> text;
  for (int32_t i = 0; i < 90; ++i) text.push_back(i % 40);
  for (Drafter& drafter : drafters) {
    drafter.follow(text);
    answers.push_back({&drafter, 100});
  }
  int64_t all = 0;
  for (const auto& drafts : choose_drafts(StepCosts(), answers, 10)) all += std::ssize(drafts);
  EXPECT_EQ(all, kMostDraftRows);
}

TEST(DraftsOption, KnowsAutoOffAndNumbers) {
  EXPECT_EQ(*parse_drafts("auto"), kDraftsAuto);
  EXPECT_EQ(*parse_drafts("off"), 0);
  EXPECT_EQ(*parse_drafts("8"), 8);
  for (const char* wrong : {"", "0", "-1", "65", "8x", "on", "1e1"}) {
    const auto drafts = parse_drafts(wrong);
    ASSERT_FALSE(drafts) << wrong;
    EXPECT_NE(drafts.error().message.find("expected auto, off or a whole number from 1 to 64"),
              std::string::npos);
  }
  EXPECT_TRUE(check_drafts(kDraftsAuto));
  EXPECT_FALSE(check_drafts(-2));
  EXPECT_FALSE(check_drafts(kMostDrafts + 1));
}

}  // namespace
}  // namespace kvcast

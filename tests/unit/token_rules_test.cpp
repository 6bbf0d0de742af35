// What requests say about single tokens of an answer.
#include "runtime/token_rules.h"

#include <gmock/gmock.h>

#include <cmath>

namespace kvcast {
namespace {

using ::testing::ElementsAre;

const std::vector<float> kLogits = {1.0F, 0.9F, 0.5F};
constexpr float kNever = -std::numeric_limits<float>::infinity();

std::vector<float> under(const TokenRules& rules, const std::vector<int32_t>& answer = {},
                         const std::vector<int64_t>& end_tokens = {}) {
  std::vector<float> scratch;
  const auto logits = apply_rules(rules, answer, end_tokens, kLogits, scratch);
  return {logits.begin(), logits.end()};
}

TEST(TokenRules, NoneLeaveTheLogitsAsTheyAre) {
  std::vector<float> scratch;
  EXPECT_EQ(apply_rules({}, std::vector<int32_t>{1}, {}, kLogits, scratch).data(), kLogits.data());
  EXPECT_TRUE(scratch.empty());
}

TEST(TokenRules, PenaltiesCountTheAnswersTokens) {
  TokenRules rules;
  rules.presence_penalty = 0.5F;
  EXPECT_THAT(under(rules), ElementsAre(1.0F, 0.9F, 0.5F));
  EXPECT_THAT(under(rules, {0, 0, 2, 7, -1}), ElementsAre(0.5F, 0.9F, 0.0F));
  rules.presence_penalty = 0;
  rules.frequency_penalty = 0.25F;
  EXPECT_THAT(under(rules, {0, 0, 2}), ElementsAre(0.5F, 0.9F, 0.25F));
}

TEST(TokenRules, BiasIgnoresIdsOutsideTheVocabulary) {
  TokenRules rules;
  rules.logit_bias = {{2, 1.0F}, {9, 5.0F}, {-1, 5.0F}};
  EXPECT_THAT(under(rules), ElementsAre(1.0F, 0.9F, 1.5F));
}

TEST(TokenRules, NothingEndsAnAnswerBeforeItsLeastLength) {
  TokenRules rules;
  rules.stop_tokens = {2};
  rules.min_tokens = 2;
  EXPECT_THAT(under(rules, {1}, {0}), ElementsAre(kNever, 0.9F, kNever));
  EXPECT_THAT(under(rules, {1, 1}, {0}), ElementsAre(1.0F, 0.9F, 0.5F));
}

TEST(TokenRules, BannedSequencesAreNotCompleted) {
  TokenRules rules;
  rules.banned = {{0}, {1, 1, 2}};
  EXPECT_THAT(under(rules, {1}), ElementsAre(kNever, 0.9F, 0.5F));
  EXPECT_THAT(under(rules, {0, 1, 1}), ElementsAre(kNever, 0.9F, kNever));
  rules.banned = {{0}, {1}, {2}};  // nothing would be left
  EXPECT_THAT(under(rules), ElementsAre(1.0F, 0.9F, 0.5F));
}

}  // namespace
}  // namespace kvcast

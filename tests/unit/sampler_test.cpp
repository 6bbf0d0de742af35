#include "runtime/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace kvcast {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t greedy(const std::vector<float>& logits) {
  return Sampler({}).sample(logits, {}).value_or(-1);
}

// Share of each token in `draws` samples.
std::vector<double> frequencies(const SamplingOptions& options, const std::vector<float>& logits,
                                int draws) {
  Sampler sampler(options);
  std::vector<double> share(logits.size(), 0.0);
  for (int i = 0; i < draws; ++i) share[sampler.sample(logits, {}).value()] += 1.0 / draws;
  return share;
}

// The slow twin: the probabilities that the options leave, by sorting everything.
std::vector<double> expected_probabilities(const SamplingOptions& options,
                                           const std::vector<float>& logits) {
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(logit / options.temperature));
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  if (options.top_k > 0) order.resize(std::min<size_t>(order.size(), options.top_k));
  double total = 0.0;
  for (const size_t token : order) total += p[token];
  double before = 0.0;
  std::vector<double> kept(p.size(), 0.0);
  for (const size_t token : order) {
    const bool in_nucleus = before < options.top_p * total;
    if (in_nucleus && p[token] >= options.min_p * p[order[0]]) kept[token] = p[token];
    before += p[token];
  }
  const double sum = std::accumulate(kept.begin(), kept.end(), 0.0);
  for (double& probability : kept) probability /= sum;
  return kept;
}

TEST(Sampler, DefaultIsGreedyAndTheLowestOfEqualIdsWins) {
  EXPECT_EQ(greedy({0.5F, 3.0F, -1.0F, 3.0F}), 1);
  EXPECT_EQ(greedy({-5.0F}), 0);
}

TEST(Sampler, NanAndMinusInfinityAreNeverChosen) {
  EXPECT_EQ(greedy({kNan, -kInfinity, -3.0F, kNan}), 2);
  EXPECT_EQ(greedy({0.0F, kInfinity, 5.0F}), 1);
  const auto share = frequencies({.temperature = 1.0F}, {kNan, 0.0F, -kInfinity, 0.0F}, 1000);
  EXPECT_EQ(share[0], 0.0);
  EXPECT_EQ(share[2], 0.0);
  EXPECT_NEAR(share[1], 0.5, 0.1);
}

TEST(Sampler, LogitsWithoutANumberAreAnError) {
  for (const float temperature : {0.0F, 1.0F}) {
    Sampler sampler({.temperature = temperature});
    const auto token = sampler.sample(std::vector<float>{kNan, -kInfinity}, {});
    ASSERT_FALSE(token);
    EXPECT_THAT(token.error().message, HasSubstr("none of the 2 logits"));
    EXPECT_FALSE(sampler.sample({}, {}));
  }
}

TEST(Sampler, ExtremeLogitsAndTemperaturesStayDefined) {
  const std::vector<float> logits = {3e38F, -3e38F, 3e38F, kInfinity};
  for (const float temperature : {1e-30F, 1.0F, 3e38F}) {
    SamplingOptions options{.temperature = temperature, .top_p = 0.9F, .min_p = 0.01F};
    const auto token = Sampler(options).sample(logits, {});
    ASSERT_TRUE(token);
    EXPECT_GE(*token, 0);
    EXPECT_LT(*token, 4);
  }
  EXPECT_THAT(frequencies({.temperature = 1e-30F}, {1.0F, 2.0F, 1.999F}, 100),
              ElementsAre(0.0, testing::DoubleNear(1.0, 1e-9), 0.0));
}

TEST(Sampler, FrequenciesFollowTheFilteredDistribution) {
  const std::vector<float> logits = {1.0F, 0.2F, 2.2F, -0.5F, 1.0F, 0.9F, -3.0F, 1.7F};
  const std::vector<SamplingOptions> cases = {
      {.temperature = 1.0F},
      {.temperature = 0.5F},
      {.temperature = 1.0F, .top_k = 3},
      {.temperature = 1.0F, .top_k = 100},
      {.temperature = 1.0F, .top_k = 4},  // cuts between the two tokens with logit 1
      {.temperature = 1.0F, .top_p = 0.6F},
      {.temperature = 2.0F, .top_p = 0.95F},
      {.temperature = 1.0F, .top_p = 1e-6F},
      {.temperature = 1.0F, .min_p = 0.25F},
      {.temperature = 1.0F, .min_p = 1.0F},
      {.temperature = 1.5F, .top_k = 5, .top_p = 0.7F, .min_p = 0.3F},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto expected = expected_probabilities(cases[i], logits);
    const auto share = frequencies(cases[i], logits, 50'000);
    for (size_t token = 0; token < logits.size(); ++token) {
      // Five standard deviations of a share over 50,000 draws.
      EXPECT_NEAR(share[token], expected[token], 0.012) << "case " << i << " token " << token;
      EXPECT_EQ(share[token] == 0.0, expected[token] == 0.0) << "case " << i << " token " << token;
    }
  }
}

TEST(Sampler, SeedFixesTheTokens) {
  const std::vector<float> logits(1000, 0.0F);
  const auto tokens = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1.0F, .seed = seed});
    std::vector<int32_t> drawn;
    for (int i = 0; i < 5; ++i) drawn.push_back(*sampler.sample(logits, {}));
    return drawn;
  };
  EXPECT_EQ(tokens(1), tokens(1));
  EXPECT_NE(tokens(1), tokens(2));
  // mt19937_64(7): 53 high bits as a fraction, times 1000. The same wherever this is built.
  std::mt19937_64 random(7);
  std::vector<int32_t> expected;
  for (int i = 0; i < 5; ++i) {
    expected.push_back(
        static_cast<int32_t>(std::ldexp(static_cast<double>(random() >> 11), -53) * 1000.0));
  }
  EXPECT_EQ(tokens(7), expected);
}

TEST(Sampler, RepetitionPenaltyPushesSeenTokensDownOnce) {
  const std::vector<float> logits = {4.0F, 3.0F, -1.0F};
  const auto with = [&](float penalty, const std::vector<int32_t>& previous) {
    return Sampler({.repetition_penalty = penalty}).sample(logits, previous).value_or(-1);
  };
  EXPECT_EQ(with(1.0F, {0, 0}), 0);
  EXPECT_EQ(with(1.3F, {0}), 0);        // 4 / 1.3 = 3.08
  EXPECT_EQ(with(1.3F, {0, 0, 0}), 0);  // counted once, not 4 / 1.3^3
  EXPECT_EQ(with(1.4F, {0}), 1);        // 4 / 1.4 = 2.86
  EXPECT_EQ(with(1.4F, {-1, 3, INT32_MAX}), 0);
  // Negative logits are multiplied: -1 becomes -2 and falls behind -1.5.
  EXPECT_EQ(Sampler({.repetition_penalty = 2.0F})
                .sample(std::vector<float>{-1.0F, -1.5F}, std::vector<int32_t>{0})
                .value_or(-1),
            1);
}

TEST(SamplingOptions, DefaultsAreValidAndEachWrongOptionIsNamed) {
  EXPECT_TRUE(validate(SamplingOptions{}));
  EXPECT_TRUE(validate({.temperature = 0.8F, .top_k = 40, .top_p = 0.95F, .min_p = 0.05F}));
  const std::vector<std::pair<std::string, SamplingOptions>> wrong = {
      {"temperature", {.temperature = -0.1F}},
      {"temperature", {.temperature = kNan}},
      {"temperature", {.temperature = kInfinity}},
      {"top_k", {.top_k = -1}},
      {"top_p", {.top_p = 0.0F}},
      {"top_p", {.top_p = 1.1F}},
      {"top_p", {.top_p = kNan}},
      {"min_p", {.min_p = -0.1F}},
      {"min_p", {.min_p = 1.5F}},
      {"repetition_penalty", {.repetition_penalty = 0}},
      {"repetition_penalty", {.repetition_penalty = kInfinity}},
  };
  for (const auto& [option, options] : wrong) {
    const auto status = validate(options);
    ASSERT_FALSE(status) << option;
    EXPECT_THAT(status.error().message,
                AllOf(HasSubstr(option + ": expected"), HasSubstr("found")));
  }
}

}  // namespace
}  // namespace kvcast

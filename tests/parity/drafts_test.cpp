// Answers with drafts are those without, to the token, and leave the same caches, to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/answered.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

/// A text that repeats itself, and not quite.
std::vector<int32_t> repeating(size_t count, int32_t salt) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = i % 23 == 7 ? i : i % 11;
    tokens.push_back(
        static_cast<int32_t>((at * 29 + static_cast<size_t>(salt) * 17) % kSmallVocab));
  }
  return tokens;
}

class Drafts : public testing::TestWithParam<WeightType> {};

TEST_P(Drafts, AnswersAndCachesAreThoseOfDecodingTokenByToken) {
  const Models models = small_pair(GetParam(), 2);
  int64_t drafted = 0, accepted = 0;
  for (const char* prefill :
       {"exact", "kv-prediction", "auxiliary", "random:0.5", "lazy:0.75-0.25", "zero-cache"}) {
    for (int32_t salt = 0; salt < 3; ++salt) {
      AnsweredOptions options;
      options.prefill = prefill;
      const auto prompt = repeating(40 + 13 * static_cast<size_t>(salt), salt);
      Answered plain(models, options, prompt, 0);
      Answered* const alone[] = {&plain};
      write_all(models, alone);
      for (const int64_t drafts : {int64_t{1}, int64_t{5}, int64_t{16}, kDraftsAuto}) {
        Answered answer(models, options, prompt, drafts);
        Answered* const one[] = {&answer};
        write_all(models, one);
        expect_equal(answer, plain, std::string(prefill) + ", drafts " + std::to_string(drafts));
        drafted += answer.drafter.drafted();
        accepted += answer.drafter.accepted();
      }
    }
  }
  EXPECT_GT(accepted, 0);  // else nothing was tried
  EXPECT_GT(drafted, accepted);
}

TEST_P(Drafts, SampledAnswersAreTheSameSeedBySeed) {
  const Models models = small_pair(GetParam(), 2);
  int64_t drafted = 0, accepted = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    AnsweredOptions options;
    options.rules.sampling = {.temperature = 0.6F, .top_k = 30, .top_p = 0.9F, .seed = seed};
    options.rules.sampling.repetition_penalty = seed % 2 == 0 ? 1.0F : 1.1F;
    const auto prompt = repeating(60, static_cast<int32_t>(seed));
    Answered plain(models, options, prompt, 0), answer(models, options, prompt, 6);
    for (Answered* of : {&plain, &answer}) {
      Answered* const one[] = {of};
      write_all(models, one);
    }
    expect_equal(answer, plain, "seed " + std::to_string(seed));
    drafted += answer.drafter.drafted();
    accepted += answer.drafter.accepted();
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(drafted, accepted);
}

TEST_P(Drafts, RulesHoldForEveryTokenOfAStep) {
  const Models models = small_pair(GetParam(), 2);
  for (int32_t salt = 0; salt < 4; ++salt) {
    AnsweredOptions options;
    options.rules.tokens.presence_penalty = 0.3F;
    options.rules.tokens.frequency_penalty = 0.2F;
    options.rules.tokens.min_tokens = 9;
    options.rules.tokens.logit_bias = {{5, 2.0F}, {29, -3.0F}};
    options.rules.tokens.banned = {{11}, {29, 58}};
    const auto prompt = repeating(50, salt);
    Answered first(models, options, prompt, 0);
    Answered* const alone[] = {&first};
    write_all(models, alone);
    // What the answer has in its middle ends it.
    options.rules.tokens.stop_tokens = {first.writer.tokens()[30]};
    Answered plain(models, options, prompt, 0), answer(models, options, prompt, 12);
    for (Answered* of : {&plain, &answer}) {
      Answered* const one[] = {of};
      write_all(models, one);
    }
    expect_equal(answer, plain, "prompt " + std::to_string(salt));
    EXPECT_EQ(answer.writer.finished(), FinishReason::kEndOfText);
  }
}

TEST_P(Drafts, AnswersBesideOneAnotherAreThoseOfEachAlone) {
  std::vector<Asked> asked;
  for (const int64_t drafts : {int64_t{3}, int64_t{0}, kDraftsAuto, int64_t{16}, int64_t{7}}) {
    const size_t i = asked.size();
    AnsweredOptions options;
    options.rules.max_tokens = 20 + 11 * static_cast<int64_t>(i);
    asked.push_back({options, repeating(30 + 9 * i, static_cast<int32_t>(i)), drafts});
  }
  expect_equal_together(small_pair(GetParam(), 3), asked);
}

TEST_P(Drafts, ARevisedAnswerIsTheExactOneAndItsCacheExact) {
  const Models models = small_pair(GetParam(), 2);
  int64_t revised = 0, accepted = 0;
  for (int32_t salt = 0; salt < 6; ++salt) {
    const auto prompt = repeating(40 + 9 * static_cast<size_t>(salt), salt);
    AnsweredOptions exact;
    Answered plain(models, exact, prompt, 0);
    Answered* const alone[] = {&plain};
    write_all(models, alone);
    for (const char* prefill : {"kv-prediction:refine=1", "kv-prediction:tail=8,refine=7",
                                "kv-prediction:refine=64", "kv-prediction:refine=auto"}) {
      for (const int64_t drafts : {int64_t{4}, kDraftsAuto}) {
        AnsweredOptions options;
        options.prefill = prefill;
        options.revise = true;
        Answered answer(models, options, prompt, drafts);
        Answered* const one[] = {&answer};
        write_all(models, one);
        EXPECT_EQ(answer.sequence.base.exact_rows(), answer.sequence.base.next_position());
        expect_equal(answer, plain, prefill);
        revised += answer.refiner->report().revised_tokens;
        accepted += answer.drafter.accepted();
      }
    }
  }
  EXPECT_GT(revised, 0);
  EXPECT_GT(accepted, 0);
}

TEST_P(Drafts, WhatIsRefinedAndNotRevisedComesTheSameWay) {
  const Models models = small_pair(GetParam(), 2);
  int64_t accepted = 0;
  for (const char* prefill : {"kv-prediction:refine=3", "kv-prediction:tail=8,refine=16"}) {
    for (const float temperature : {0.0F, 0.7F}) {
      AnsweredOptions options;
      options.prefill = prefill;
      options.rules.sampling.temperature = temperature;
      const auto prompt = repeating(60, 2);
      Answered plain(models, options, prompt, 0), answer(models, options, prompt, 9);
      for (Answered* of : {&plain, &answer}) {
        Answered* const one[] = {of};
        write_all(models, one);
      }
      expect_equal(answer, plain, prefill);
      const Refinement found = answer.refiner->report(), expected = plain.refiner->report();
      EXPECT_EQ(found.exact_after_tokens, expected.exact_after_tokens);
      EXPECT_EQ(found.compared_tokens, expected.compared_tokens);
      EXPECT_EQ(found.agreed_tokens, expected.agreed_tokens);
      EXPECT_EQ(found.log_ratio_sum, expected.log_ratio_sum);
      accepted += answer.drafter.accepted();
    }
  }
  EXPECT_GT(accepted, 0);
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Drafts);

TEST(DraftsEnd, NoTokenIsWrittenBehindTheContext) {
  const ModelConfig config = small_openelm(3, 64, 90);
  const Models models = random_models(config, nullptr, {}, WeightType::kF32, 1);
  AnsweredOptions options;
  options.rules.max_tokens = 1000;
  const auto prompt = repeating(60, 1);
  Answered plain(models, options, prompt, 0), answer(models, options, prompt, 16);
  for (Answered* of : {&plain, &answer}) {
    Answered* const one[] = {of};
    write_all(models, one);
  }
  expect_equal(answer, plain, "context");
  EXPECT_EQ(answer.writer.finished(), FinishReason::kContextFull);
  EXPECT_EQ(std::ssize(answer.sequence.tokens), 90);
}

/// The second and third tokens of an answer, drawn often: as without drafts.
TEST(DraftsSampling, AnswersAreDistributedAsWithoutDrafts) {
  const ModelConfig config = make_openelm_config({.n_layers = 3,
                                                  .model_dim = 32,
                                                  .head_dim = 8,
                                                  .gqa_groups = 2,
                                                  .ffn_dim_divisor = 16,
                                                  .vocab_size = 12,
                                                  .max_context_tokens = 64});
  const Models models = random_models(config, nullptr, {}, WeightType::kF32, 1);
  std::vector<int32_t> prompt(14);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * 5 % 7);
  constexpr int kDraws = 10000;
  std::vector<double> plain(144), drafted(144);
  int64_t run = 0, accepted = 0;
  Sequence prefilled(models);
  std::vector<float> logits(12);
  PrefillWorkspace workspace;
  prefilled.tokens = prompt;
  Sequence* const one[] = {&prefilled};
  make_exact_strategy()->prefill(models, one, logits.data(), workspace, {});
  const auto draw = [&](int64_t drafts, uint64_t seed, std::vector<double>& counts) {
    Sequence sequence = prefilled.fork(models, std::ssize(prompt));
    SamplingOptions sampling{.temperature = 0.7F, .top_p = 0.95F};
    sampling.seed = seed;
    AnswerWriter writer(
        {.max_tokens = 4, .sampling = sampling, .stop = {}, .ignore_end_of_text = true}, nullptr);
    Drafter drafter(drafts);
    const Answering answering[] = {{&sequence, &writer, nullptr, drafts > 0 ? &drafter : nullptr}};
    ASSERT_TRUE(write_answers(models, answering, logits, workspace, [](size_t, const auto&) {}));
    ++counts[static_cast<size_t>(writer.tokens()[1] * 12 + writer.tokens()[2])];
    run += drafter.drafted();
    accepted += drafter.accepted();
  };
  for (int i = 0; i < kDraws; ++i) {
    draw(0, 1'000'000 + static_cast<uint64_t>(i), plain);
    draw(3, static_cast<uint64_t>(i), drafted);
  }
  EXPECT_GT(accepted, kDraws / 20);
  EXPECT_GT(run - accepted, kDraws / 20);
  double chi_square = 0;
  int cells = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double both = plain[i] + drafted[i];
    if (both < 20) continue;
    chi_square += (plain[i] - drafted[i]) * (plain[i] - drafted[i]) / both;
    ++cells;
  }
  ASSERT_GT(cells, 4);
  // The mean of chi-square is its degrees of freedom, its variance twice that: 4 deviations.
  EXPECT_LT(chi_square, cells + 4 * std::sqrt(2.0 * cells));
}

}  // namespace
}  // namespace kvcast

// Guesses of the auxiliary change no answer, whether it has a say in it or not, and come where they
// pay.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "runtime/auxiliary_turn.h"
#include "support/answered.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

/// A pair of which the auxiliary is the base itself, so that its guesses come true.
Models twins(WeightType type) {
  const ModelConfig base = small_openelm(4, 64);
  Models models = random_models(base, &base, std::vector<int64_t>{0, 1, 2, 3}, type, 2);
  models.auxiliary = std::make_unique<Transformer>(base, random_weights(base, type, 2, 1), 2);
  models.kv_type = type == WeightType::kF32 ? KvType::kF32 : KvType::kBf16;
  return models;
}

/// Both without drafts and with, alone.
std::pair<std::unique_ptr<Answered>, std::unique_ptr<Answered>> answer_twice(
    const Models& models, const AnsweredOptions& options, const std::vector<int32_t>& prompt,
    int64_t drafts) {
  auto plain = std::make_unique<Answered>(models, options, prompt, 0);
  auto drafted = std::make_unique<Answered>(models, options, prompt, drafts);
  for (Answered* answer : {plain.get(), drafted.get()}) {
    Answered* const one[] = {answer};
    write_all(models, one);
  }
  return {std::move(plain), std::move(drafted)};
}

class AuxiliaryDrafts : public testing::TestWithParam<WeightType> {};

TEST_P(AuxiliaryDrafts, MixedAnswersAndBothCachesAreThoseWithout) {
  const Models models = small_pair(GetParam(), 2);
  int64_t drafted = 0, accepted = 0;
  for (const char* prefill : {"kv-prediction:mix=0.5", "kv-prediction:tail=8,mix=0.75"}) {
    for (const float temperature : {0.0F, 0.5F}) {
      for (int32_t salt = 0; salt < 3; ++salt) {
        for (const int64_t drafts : {int64_t{1}, int64_t{5}, int64_t{16}, kDraftsAuto}) {
          AnsweredOptions options{.prefill = prefill};
          options.rules.sampling = {.temperature = temperature, .top_k = 20, .seed = 7};
          const auto prompt = some_tokens(40 + 9 * static_cast<size_t>(salt), salt);
          const auto [plain, answer] = answer_twice(models, options, prompt, drafts);
          const std::string what = std::string(prefill) + ", drafts " + std::to_string(drafts);
          expect_equal(*answer, *plain, what);
          expect_equal(answer->sequence.auxiliary, plain->sequence.auxiliary, what);
          drafted += answer->drafter.drafted();
          accepted += answer->drafter.accepted();
        }
      }
    }
  }
  EXPECT_GT(accepted, 0);  // else nothing was tried
  EXPECT_GT(drafted, accepted);
}

TEST_P(AuxiliaryDrafts, AnAuxiliaryThatKnowsTheAnswerIsRight) {
  const Models models = twins(GetParam());
  for (const char* prefill : {"kv-prediction:refine=64", "kv-prediction:mix=0.5"}) {
    const AnsweredOptions options{.prefill = prefill, .revise = true};
    const auto [plain, answer] = answer_twice(models, options, some_tokens(60, 3), 4);
    expect_equal(*answer, *plain, prefill);
    // Of 59 tokens after the first; where the text repeats itself, that is asked first.
    EXPECT_GE(answer->drafter.accepted(), 30) << prefill;
  }
}

TEST_P(AuxiliaryDrafts, AnswersBesideOneAnotherAreThoseOfEachAlone) {
  constexpr std::pair<const char*, int64_t> kAsked[] = {
      {"kv-prediction:mix=0.5", 3},           {"kv-prediction:mix=0.25", 0},
      {"kv-prediction", kDraftsAuto},         {"exact", 16},
      {"kv-prediction:tail=4,mix=0.75", 7},   {"kv-prediction:mix=0.6", kDraftsAuto},
      {"kv-prediction:refine=5,mix=0.25", 4}, {"kv-prediction:refine=9,mix=0.75", kDraftsAuto},
  };
  std::vector<Asked> asked;
  for (const auto& [prefill, drafts] : kAsked) {
    const size_t i = asked.size();
    AnsweredOptions options{.prefill = prefill};
    options.revise = std::string(prefill).find("refine") != std::string::npos;
    options.rules.max_tokens = 20 + 7 * static_cast<int64_t>(i);
    std::vector<int32_t> prompt = some_tokens(30 + 9 * i, static_cast<int32_t>(i));
    const auto again = some_tokens(20, static_cast<int32_t>(i));  // something to be found again
    prompt.insert(prompt.end(), again.begin(), again.end());
    asked.push_back({options, prompt, drafts});
  }
  expect_equal_together(small_pair(GetParam(), 3), asked);
}

TEST_P(AuxiliaryDrafts, BehindItsContextTheTextAloneGuesses) {
  const ModelConfig base = small_openelm(6, 96), auxiliary = small_openelm(3, 64, 64);
  Models models = random_models(base, &auxiliary, canonical_layer_map(6, 3), GetParam(), 2);
  models.kv_type = GetParam() == WeightType::kF32 ? KvType::kF32 : KvType::kBf16;
  auto prompt = some_tokens(25);
  const auto again = prompt;
  prompt.insert(prompt.end(), again.begin(), again.end());
  for (const char* prefill : {"kv-prediction:mix=0.75", "kv-prediction"}) {
    for (const int64_t drafts : {int64_t{9}, kDraftsAuto}) {
      const AnsweredOptions options{.prefill = prefill};
      const auto [plain, answer] = answer_twice(models, options, prompt, drafts);
      expect_equal(*answer, *plain, prefill);
      EXPECT_LE(answer->sequence.auxiliary.next_position(), 64);
    }
  }
}

TEST_P(AuxiliaryDrafts, OneThatHasNotReadThePromptIsNotAsked) {
  const Models models = twins(GetParam());
  const auto [plain, answer] = answer_twice(models, {}, some_tokens(20), 4);
  expect_equal(*answer, *plain, "exact");
  EXPECT_EQ(answer->sequence.auxiliary.next_position(), 0);
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(AuxiliaryDrafts);

/// Steps of both models as if they had taken so long.
void teach(const Models& models, double base_ms, double auxiliary_ms) {
  for (int trial = 0; trial < 4; ++trial) {
    for (int64_t rows = 1; rows <= 20; ++rows) {
      models.base_costs->observe(rows, base_ms * (1 + 0.02 * static_cast<double>(rows)));
      models.auxiliary_costs->observe(rows, auxiliary_ms);
    }
  }
}

/// How many guesses a step of a pair like this takes where the models' steps take so long; `right`:
/// how often the last ones came true.
int64_t guesses_where(double base_ms, double auxiliary_ms, bool right, const char* prefill) {
  const Models models = twins(WeightType::kF32);
  Answered answer(models, {.prefill = prefill}, some_tokens(20), kDraftsAuto);
  teach(models, base_ms, auxiliary_ms);
  for (int i = 0; i < 60; ++i) {
    for (const double probability : {0.1, 0.4, 0.6, 0.8, 0.95}) {
      answer.drafter.judge(probability, right);
    }
  }
  AuxiliaryRows rows[] = {{.sequence = &answer.sequence, .drafter = &answer.drafter, .most = 50}};
  answer.sequence.tokens.push_back(1);
  PrefillWorkspace workspace;
  run_auxiliaries(models, rows, 1, workspace);
  EXPECT_EQ(std::ssize(answer.sequence.tokens), 21);
  return std::ssize(rows[0].drafts);
}

TEST(AuxiliaryDraftsPay, WhereTheAuxiliaryIsFastAndRight) {
  // A pass is timed while it runs, so the times that were taught are far from what it takes.
  EXPECT_GE(guesses_where(1000, 100, true, "kv-prediction"), 4);
  EXPECT_EQ(guesses_where(1000, 100, false, "kv-prediction"), 0);
  EXPECT_EQ(guesses_where(100, 1000, true, "kv-prediction"), 0);
  EXPECT_GE(guesses_where(1000, 100, true, "kv-prediction:mix=0.5"), 4);
  EXPECT_EQ(guesses_where(1000, 100, false, "kv-prediction:mix=0.5"), 0);
}

TEST(AuxiliaryDraftsPay, NoneBeforeStepsWereSeen) {
  const Models models = twins(WeightType::kF32);
  Answered answer(models, {.prefill = "kv-prediction"}, some_tokens(20), kDraftsAuto);
  const int64_t read = answer.sequence.auxiliary.next_position();
  AuxiliaryRows rows[] = {{.sequence = &answer.sequence, .drafter = &answer.drafter, .most = 50}};
  answer.sequence.tokens.push_back(1);
  PrefillWorkspace workspace;
  run_auxiliaries(models, rows, 1, workspace);
  EXPECT_TRUE(rows[0].drafts.empty());
  EXPECT_EQ(answer.sequence.auxiliary.next_position(), read);
}

/// Drafts that an answer among `answers` has from its text, after the auxiliaries' turn.
std::vector<int32_t> drafts_beside(const Models& models, size_t answers, double auxiliary_ms) {
  std::vector<std::unique_ptr<Answered>> all;
  std::vector<AuxiliaryRows> rows;
  for (size_t i = 0; i < answers; ++i) {
    // The last two tokens have been there before, once.
    std::vector<int32_t> prompt = {5, 6, 7, 8, 9, 1, 5, 6};
    all.push_back(std::make_unique<Answered>(models, AnsweredOptions{.prefill = "kv-prediction"},
                                             prompt, kDraftsAuto));
    Answered& answer = *all.back();
    answer.sequence.tokens.push_back(7);
    answer.drafter.follow(answer.sequence.tokens);
    rows.push_back({.sequence = &answer.sequence, .most = 50});
    if (i == 0) rows.back().drafter = &answer.drafter;
  }
  rows.front().drafts = {8, 9};
  teach(models, 1000, auxiliary_ms);
  PrefillWorkspace workspace;
  run_auxiliaries(models, rows, static_cast<int64_t>(answers) + 2, workspace);
  return rows.front().drafts;
}

TEST(AuxiliaryDraftsPay, DraftsFromTheTextStayWhereItDoesNotGuess) {
  const std::vector<int32_t> from_text = {8, 9};
  const Models models = twins(WeightType::kF32);
  EXPECT_NE(drafts_beside(models, 1, 100), from_text);                   // it is surer
  EXPECT_EQ(drafts_beside(twins(WeightType::kF32), 8, 300), from_text);  // all others would wait
  const ModelConfig base = small_openelm(4, 64), auxiliary = small_openelm(4, 64, 9);
  const Models full =
      random_models(base, &auxiliary, std::vector<int64_t>{0, 1, 2, 3}, WeightType::kF32, 2);
  EXPECT_EQ(drafts_beside(full, 1, 100), from_text);  // its context is
}

}  // namespace
}  // namespace kvcast

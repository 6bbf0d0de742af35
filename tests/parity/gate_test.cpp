// A forecast that is not trusted is given up: the prompt is read exactly.
#include "prefill/gate.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/small_openelm.h"
#include "support/tensors.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

// Scores are about half of -log(211) here: random weights know nothing.
constexpr const char* kNever = "gate=-1000";
constexpr const char* kAlways = "gate=1000";

Models pair(WeightType type) {
  const ModelConfig base = small_openelm(6, 96), auxiliary = small_openelm(3, 64);
  return random_models(base, &auxiliary, canonical_layer_map(6, 3), type, 2);
}

struct Read {
  std::vector<Sequence> sequences;
  std::vector<float> logits;
  PrefillReport report;
};

Read read(const Models& models, const std::string& spec,
          const std::vector<std::vector<int32_t>>& prompts) {
  Read out;
  std::vector<Sequence*> batch;
  for (const auto& prompt : prompts) out.sequences.emplace_back(models).tokens = prompt;
  for (Sequence& sequence : out.sequences) batch.push_back(&sequence);
  out.logits.resize(prompts.size() * kSmallVocab);
  PrefillWorkspace workspace;
  out.report =
      (*PrefillStrategy::parse(spec))->prefill(models, batch, out.logits.data(), workspace, {});
  return out;
}

/// As the scheduler does it.
Read read_in_steps(const Models& models, const std::string& spec,
                   const std::vector<int32_t>& prompt, int64_t max_rows) {
  Read out;
  Sequence& sequence = out.sequences.emplace_back(models);
  sequence.tokens = prompt;
  out.logits.resize(kSmallVocab);
  PrefillWorkspace workspace;
  const auto strategy = *PrefillStrategy::parse(spec);
  PrefillState state = PrefillState::kMore;
  while (state == PrefillState::kMore) {
    state =
        strategy->advance(models, sequence, max_rows, out.logits.data(), workspace, {}, out.report);
  }
  Sequence* const one[] = {&sequence};
  if (state == PrefillState::kLastRun) decode_step(models, one, out.logits.data(), workspace);
  return out;
}

std::string with(const std::string& spec, const char* gate) {
  return spec + (spec.find(':') == std::string::npos ? ":" : ",") + gate;
}

class Gate : public testing::TestWithParam<WeightType> {};

TEST_P(Gate, ATrustedForecastIsTheSameAsWithoutAGate) {
  const Models models = pair(GetParam());
  const std::vector<std::vector<int32_t>> prompts = {some_tokens(300), some_tokens(1, 1),
                                                     some_tokens(40, 2), some_tokens(9, 3)};
  for (const std::string spec : {"kv-prediction", "kv-prediction:tail=4", "kv-prediction:tail=16",
                                 "kv-prediction:tail=70"}) {
    const Read plain = read(models, spec, prompts);
    const Read judged = read(models, with(spec, kNever), prompts);
    EXPECT_EQ(judged.logits, plain.logits) << spec;
    EXPECT_EQ(judged.report.predicted_tokens, plain.report.predicted_tokens) << spec;
    EXPECT_TRUE(judged.sequences[0].gate->trusted()) << spec;
    EXPECT_FALSE(judged.sequences[1].gate) << spec;  // nothing was forecast
    for (const int64_t rows : {1, 50, 310}) {
      const Read steps = read_in_steps(models, with(spec, kNever), prompts[0], rows);
      EXPECT_EQ(steps.logits, read_in_steps(models, spec, prompts[0], rows).logits) << spec << rows;
      EXPECT_EQ(steps.sequences[0].gate->score, judged.sequences[0].gate->score) << spec << rows;
    }
  }
}

TEST_P(Gate, AForecastThatIsNotTrustedIsReadExactly) {
  const Models models = pair(GetParam());
  const std::vector<std::vector<int32_t>> prompts = {some_tokens(300), some_tokens(1, 1),
                                                     some_tokens(40, 2)};
  const Read exact = read(models, "exact", prompts);
  for (const std::string spec :
       {"kv-prediction", "kv-prediction:tail=4", "kv-prediction:tail=70,refine=auto"}) {
    const Read judged = read(models, with(spec, kAlways), prompts);
    EXPECT_EQ(judged.logits, exact.logits) << spec;
    EXPECT_EQ(judged.report.predicted_tokens, 0) << spec;
    for (size_t s = 0; s < prompts.size(); ++s) {
      EXPECT_EQ(judged.sequences[s].base.exact_rows(), std::ssize(prompts[s])) << spec;
    }
    EXPECT_FALSE(judged.sequences[0].gate->trusted()) << spec;
    for (const int64_t rows : {1, 50, 310}) {
      const Read steps = read_in_steps(models, with(spec, kAlways), prompts[0], rows);
      EXPECT_EQ(steps.logits,
                std::vector<float>(exact.logits.begin(), exact.logits.begin() + kSmallVocab))
          << spec << rows;
      EXPECT_EQ(steps.report.predicted_tokens, 0) << spec << rows;
    }
  }
}

TEST_P(Gate, OneOfABatchMayBeRefused) {
  const Models models = pair(GetParam());
  const std::vector<std::vector<int32_t>> prompts = {some_tokens(120), some_tokens(80, 5)};
  const Read all = read(models, "kv-prediction:tail=8,gate=-1000", prompts);
  const double first = all.sequences[0].gate->score, second = all.sequences[1].gate->score;
  ASSERT_NE(first, second);
  const std::string spec = fmt::format("kv-prediction:tail=8,gate={}", (first + second) / 2);
  const Read mixed = read(models, spec, prompts);
  const size_t refused = first < second ? 0 : 1;
  const Read exact = read(models, "exact", {prompts[refused]});
  const auto row = [&](const Read& read, size_t s) {
    const auto from = read.logits.begin() + static_cast<std::ptrdiff_t>(s * kSmallVocab);
    return std::vector<float>(from, from + kSmallVocab);
  };
  EXPECT_EQ(row(mixed, refused), exact.logits);
  EXPECT_EQ(row(mixed, 1 - refused), row(all, 1 - refused));
  EXPECT_EQ(mixed.report.predicted_tokens, std::ssize(prompts[1 - refused]) - 8);
}

TEST_P(Gate, TheNextTurnIsJudgedAnew) {
  const Models models = pair(GetParam());
  Read turn = read(models, "kv-prediction:tail=4,gate=1000", {some_tokens(60)});
  Sequence& sequence = turn.sequences[0];
  sequence.tokens = some_tokens(130);
  Sequence* const one[] = {&sequence};
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse("kv-prediction:tail=4,gate=-1000"))
      ->prefill(models, one, turn.logits.data(), workspace, {});
  EXPECT_TRUE(sequence.gate->trusted());
  EXPECT_EQ(sequence.base.exact_rows(), 60);
  EXPECT_EQ(sequence.base.next_position(), 130);
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Gate);

TEST(GateScore, WhatIsNoNumberIsNotTrusted) {
  EXPECT_FALSE((GateDecision{.score = std::numeric_limits<double>::quiet_NaN(), .threshold = -1000})
                   .trusted());
}

TEST(GateScore, IsTheLeastMarginOfChoicesAndHalfOfTheirLeastLogProbability) {
  const auto first = greedy_choice(std::vector{std::log(0.1F), std::log(0.8F), std::log(0.1F)});
  const auto second = greedy_choice(std::vector{std::log(0.5F), std::log(0.1F), std::log(0.4F)});
  EXPECT_EQ(first.token, 1);
  EXPECT_EQ(second.token, 0);
  const double expected = std::log(0.5 / 0.4) + std::log(0.5) / 2;
  EXPECT_NEAR(forecast_score(std::vector{first, second}), expected, 1e-6);
  const float none = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(
      std::isnan(forecast_score(std::vector{first, greedy_choice(std::vector{0.0F, none})})));
  EXPECT_TRUE(std::isnan(forecast_score(std::vector{greedy_choice(std::vector{none, 0.0F})})));
}

TEST(GateScore, IsOfTheNextGreedyTokensAndLeavesNothingBehind) {
  const Models models = pair(WeightType::kF32);
  Read read_on = read(models, "kv-prediction:tail=8", {some_tokens(100)});
  std::vector<GreedyChoice> choices;
  for (int token = 0; token < kJudgedTokens; ++token) {
    choices.push_back(greedy_choice(read_on.logits));
    Sequence& sequence = read_on.sequences[0];
    sequence.tokens.push_back(choices.back().token);
    Sequence* const one[] = {&sequence};
    PrefillWorkspace workspace;
    ASSERT_TRUE(decode_step(models, one, read_on.logits.data(), workspace));
  }
  const Read judged = read(models, "kv-prediction:tail=8,gate=-1000", {some_tokens(100)});
  EXPECT_NEAR(judged.sequences[0].gate->score, forecast_score(choices), 1e-6);
  EXPECT_EQ(judged.sequences[0].tokens, some_tokens(100));
  EXPECT_EQ(judged.sequences[0].base.next_position(), 100);
  // One choice is enough to refuse it.
  const Read refused = read(models, "kv-prediction:tail=8,gate=1000", {some_tokens(100)});
  EXPECT_NEAR(refused.sequences[0].gate->score, forecast_score(std::span(choices).first(1)), 1e-6);
}

TEST(GateSpec, IsReadAndNamesWhatIsWrong) {
  EXPECT_EQ((*PrefillStrategy::parse("kv-prediction:tail=16,gate=auto"))->spec(),
            "kv-prediction:tail=16,gate=auto");
  EXPECT_EQ((*PrefillStrategy::parse("kv-prediction:gate=-1.5,refine=3"))->spec(),
            "kv-prediction:refine=3,gate=-1.5");
  EXPECT_EQ((*PrefillStrategy::parse("kv-prediction:gate=off"))->spec(), "kv-prediction");
  for (const char* spec : {"kv-prediction:gate=", "kv-prediction:gate=x", "kv-prediction:gate=inf",
                           "kv-prediction:gate=nan", "zero-cache:gate=1"}) {
    EXPECT_FALSE(PrefillStrategy::parse(spec)) << spec;
  }
  Models models = pair(WeightType::kF32);
  const auto strategy = *PrefillStrategy::parse("kv-prediction:gate=auto");
  const Status refused = check_strategy(*strategy, models);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("\"gate\" of kvcast.json"), std::string::npos);
  models.gate = -1;
  EXPECT_TRUE(check_strategy(*strategy, models));
}

}  // namespace
}  // namespace kvcast

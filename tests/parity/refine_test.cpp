// A refined cache is an exact one, to the bit.
#include "prefill/refine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

#include "prefill/strategy.h"
#include "support/cache_rows.h"
#include "support/small_openelm.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

/// A bundle of format 2: the base's first three layers run on the prompt.
Models with_exact_layers(WeightType type, int threads) {
  const ModelConfig base = small_openelm(6, 96);
  ForecastPlan plan;
  plan.exact_layers = 3;
  plan.sink_tokens = 4;
  plan.inputs.assign(6, {.reader = PromptReader::kBase, .layer = 2, .kind = InputKind::kResidual});
  Models models = random_models(base, nullptr, plan, type, threads);
  models.predictor = Predictor::random(base, {}, plan, type, threads, 3);
  models.plan = plan;
  models.kv_type = type == WeightType::kF32 ? KvType::kF32 : KvType::kBf16;
  return models;
}

/// Exact prefill of the tokens that `sequence`'s cache holds, and the next step's logits.
std::vector<float> expect_exact(const Models& models, const Sequence& sequence) {
  Sequence exact(models);
  Sequence* const one[] = {&exact};
  std::vector<float> logits(kSmallVocab);
  PrefillWorkspace workspace;
  const int64_t rows = sequence.base.next_position();
  exact.tokens.assign(sequence.tokens.begin(), sequence.tokens.begin() + rows);
  make_exact_strategy()->prefill(models, one, logits.data(), workspace, {});
  EXPECT_EQ(sequence.base.exact_rows(), rows);
  for (int64_t layer = 0; layer < exact.base.n_layers(); ++layer) {
    EXPECT_EQ(sequence.base.rows(layer), rows);
    EXPECT_TRUE(bytes_of(sequence.base, layer, rows) == bytes_of(exact.base, layer, rows))
        << "layer " << layer;
  }
  return logits;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// Some answers over forecasts, refined `rows` at a time.
class Conversation {
 public:
  Conversation(const Models& models, const std::string& spec) : models_(models), spec_(spec) {}

  Sequence& add(const std::vector<int32_t>& prompt) {
    auto& sequence = sequences_.emplace_back(std::make_unique<Sequence>(models_));
    sequence->tokens = prompt;
    return *sequence;
  }
  /// What is pending, by the strategy; the first token of each answer.
  void prefill() {
    std::vector<float> logits(sequences_.size() * kSmallVocab);
    const auto strategy = *PrefillStrategy::parse(spec_);
    strategy->prefill(models_, pointers(), logits.data(), workspace_, {});
    for (size_t s = 0; s < sequences_.size(); ++s) {
      push(*sequences_[s], std::span(logits).subspan(s * kSmallVocab, kSmallVocab));
    }
  }
  /// One decode step of all, each with at most `rows` rows refined beside it. The last logits.
  std::vector<float> step(int64_t rows) {
    std::vector<RefineBlock> blocks;
    int64_t outputs = std::ssize(sequences_);
    for (const auto& sequence : sequences_) {
      const int64_t count = std::min(rows, inexact_rows(*sequence));
      if (count == 0) continue;
      blocks.push_back({.sequence = sequence.get(), .rows = count, .outputs = count / 2});
      outputs += count / 2;
    }
    std::vector<float> logits(static_cast<size_t>(outputs * kSmallVocab));
    std::vector<DecodeRows> decoding;
    for (Sequence* sequence : pointers()) decoding.push_back({sequence});
    EXPECT_TRUE(decode_and_refine(models_, decoding, blocks, logits.data(), workspace_));
    for (size_t s = 0; s < sequences_.size(); ++s) {
      push(*sequences_[s], std::span(logits).subspan(s * kSmallVocab, kSmallVocab));
    }
    return {logits.begin(), logits.begin() + std::ssize(sequences_) * kSmallVocab};
  }
  [[nodiscard]] bool exact() const {
    return std::ranges::all_of(sequences_, [](const auto& s) { return inexact_rows(*s) == 0; });
  }
  std::vector<Sequence*> pointers() {
    std::vector<Sequence*> all;
    for (const auto& sequence : sequences_) all.push_back(sequence.get());
    return all;
  }

 private:
  static void push(Sequence& sequence, std::span<const float> logits) {
    sequence.tokens.push_back(
        static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin()));
  }
  const Models& models_;
  std::string spec_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  PrefillWorkspace workspace_;
};

class Refine : public testing::TestWithParam<WeightType> {};

TEST_P(Refine, ARefinedCacheIsAnExactOneInAnyChunksBatchAndThreads) {
  for (const int threads : {1, 3}) {
    const Models models = small_pair(GetParam(), threads);
    for (const int64_t rows : {1, 6, 7, 64}) {
      for (const char* spec : {"kv-prediction", "kv-prediction:tail=16"}) {
        Conversation answers(models, spec);
        answers.add(some_tokens(90));
        answers.add(some_tokens(41, 1));
        answers.add(some_tokens(1, 2));  // nothing to forecast
        answers.prefill();
        EXPECT_FALSE(answers.exact());
        while (!answers.exact()) {
          if (rows == 1) {  // as an answer would never catch up
            for (Sequence* s : answers.pointers()) {
              PrefillWorkspace workspace;
              int chunks = 3;
              refine_alone(models, *s, workspace, {}, [&] { return chunks-- > 0; });
            }
          }
          answers.step(rows);
        }
        const std::vector<float> logits = answers.step(rows);
        for (size_t s = 0; s < 3; ++s) {
          EXPECT_TRUE(same_bits(std::span(logits).subspan(s * kSmallVocab, kSmallVocab),
                                expect_exact(models, *answers.pointers()[s])))
              << spec << ", " << rows << " rows, " << threads << " threads, answer " << s;
        }
      }
    }
  }
}

TEST_P(Refine, A8BitCacheIsRefinedToTheBitsOfAnExactOne) {
  Models models = small_pair(GetParam(), 2);
  models.kv_type = KvType::kInt8;
  Conversation answers(models, "kv-prediction:tail=5");
  answers.add(some_tokens(90));
  answers.add(some_tokens(41, 1));
  answers.prefill();
  EXPECT_FALSE(answers.exact());
  while (!answers.exact()) answers.step(7);
  const std::vector<float> logits = answers.step(7);
  for (size_t s = 0; s < 2; ++s) {
    EXPECT_TRUE(same_bits(std::span(logits).subspan(s * kSmallVocab, kSmallVocab),
                          expect_exact(models, *answers.pointers()[s])))
        << "answer " << s;
  }
}

TEST_P(Refine, LayersThatAreExactAlreadyAreNotRunAgainAndAllIsExact) {
  const Models models = with_exact_layers(GetParam(), 2);
  for (const int64_t rows : {5, 7, 64}) {
    Conversation answers(models, "kv-prediction:tail=5,refine=8");
    answers.add(some_tokens(90));
    answers.add(some_tokens(41, 1));
    answers.add(some_tokens(3, 2));  // nothing to forecast
    Sequence& copy = answers.add(some_tokens(60, 3));
    answers.prefill();
    const auto all = answers.pointers();
    EXPECT_EQ(all[0]->base.kept_residual().layer, 2);
    EXPECT_EQ(all[0]->base.kept_residual().rows, 90 - 5 - 4);  // without tail and sinks
    EXPECT_EQ(rows_to_refine(*all[0], 1000), 90 - 5 - 4);
    EXPECT_EQ(all[2]->base.kept_residual().rows, 0);
    copy = copy.fork(models, std::ssize(copy.tokens));  // refined from the first layer on
    EXPECT_EQ(copy.base.kept_residual().rows, 0);
    while (!answers.exact()) answers.step(rows);
    const std::vector<float> logits = answers.step(rows);
    for (size_t s = 0; s < all.size(); ++s) {
      EXPECT_EQ(all[s]->base.kept_residual().rows, 0);
      EXPECT_TRUE(same_bits(std::span(logits).subspan(s * kSmallVocab, kSmallVocab),
                            expect_exact(models, *all[s])))
          << rows << " rows, answer " << s;
    }
  }
}

TEST_P(Refine, WhatIsKeptOfExactLayersFollowsTheCache) {
  const Models models = with_exact_layers(GetParam(), 2);
  Conversation answers(models, "kv-prediction:tail=5,refine=8");
  Sequence& sequence = answers.add(some_tokens(90));
  answers.prefill();
  answers.step(8);
  // The end is cut off, as by a cancelled turn, and another one goes on from there.
  sequence.base.truncate(50);
  sequence.tokens.resize(50);
  EXPECT_EQ(sequence.base.kept_residual().rows, 50 - 12);
  const auto ask = [&](int32_t salt) {
    const auto more = some_tokens(40, salt);
    sequence.tokens.insert(sequence.tokens.end(), more.begin(), more.end());
    answers.prefill();
  };
  ask(5);
  EXPECT_EQ(sequence.base.kept_residual().rows, 50 - 12 + 40 - 5);
  ask(6);  // behind the tail and the answer, of which nothing is kept
  EXPECT_EQ(sequence.base.kept_residual().rows, 50 - 12 + 40 - 5);
  EXPECT_EQ(inexact_rows(sequence), 131 - 12);
  while (!answers.exact()) answers.step(rows_to_refine(sequence, 9));
  expect_exact(models, sequence);
}

TEST_P(Refine, TheStepThatRefinesTheLastRowsIsExactAlready) {
  const Models models = small_pair(GetParam(), 2);
  Conversation answers(models, "kv-prediction:tail=4");
  Sequence& sequence = answers.add(some_tokens(50));
  answers.prefill();
  std::vector<float> logits;
  while (!answers.exact()) logits = answers.step(8);
  EXPECT_TRUE(same_bits(logits, expect_exact(models, sequence)));
}

TEST_P(Refine, ASecondTurnGoesOnFromWhatIsRefined) {
  const Models models = small_pair(GetParam(), 2);
  Conversation answers(models, "kv-prediction:tail=3,refine=8");
  Sequence& sequence = answers.add(some_tokens(60));
  answers.prefill();
  answers.step(8);
  answers.step(8);
  EXPECT_EQ(sequence.base.exact_rows(), 16);
  const auto more = some_tokens(40, 3);
  sequence.tokens.insert(sequence.tokens.end(), more.begin(), more.end());
  answers.prefill();
  EXPECT_EQ(sequence.base.exact_rows(), 16);  // a forecast row never passes for an exact one
  while (!answers.exact()) answers.step(8);
  expect_exact(models, sequence);
  // On an exact cache a short turn is read by the base itself.
  const auto little = some_tokens(7, 4);
  sequence.tokens.insert(sequence.tokens.end(), little.begin(), little.end());
  answers.prefill();
  EXPECT_TRUE(answers.exact());
  expect_exact(models, sequence);
}

TEST_P(Refine, ACancelledBlockLeavesTheConversationToBeRefinedAgain) {
  const Models models = small_pair(GetParam(), 2);
  Conversation answers(models, "kv-prediction");
  Sequence& sequence = answers.add(some_tokens(70));
  answers.prefill();
  std::stop_source stopped;
  stopped.request_stop();
  PrefillWorkspace workspace;
  std::vector<float> logits(10 * kSmallVocab);
  const DecodeRows one[] = {{&sequence}};
  const RefineBlock block[] = {{.sequence = &sequence, .rows = 20}};
  EXPECT_FALSE(
      decode_and_refine(models, one, block, logits.data(), workspace, stopped.get_token()));
  EXPECT_EQ(sequence.base.exact_rows(), 0);
  EXPECT_EQ(sequence.base.next_position(), 70);
  EXPECT_EQ(sequence.base.rows(0), 70);
  while (!answers.exact()) answers.step(16);
  expect_exact(models, sequence);
}

TEST_P(Refine, AForkTakesOverRefinedRowsAndIsExact) {
  const Models models = small_pair(GetParam(), 2);
  Conversation first(models, "kv-prediction:tail=2");
  Sequence& sequence = first.add(some_tokens(64));
  first.prefill();
  Sequence copy = sequence.fork(models, std::ssize(sequence.tokens));
  copy.tokens.back() = (copy.tokens.back() + 1) % kSmallVocab;  // another answer
  while (!first.exact()) first.step(16);
  copy.base.take_exact_rows(sequence.base, 64);
  EXPECT_EQ(copy.base.exact_rows(), 64);
  expect_exact(models, copy);
}

TEST_P(Refine, StrategiesThatLeaveTokensOutHaveNothingToRefine) {
  const Models models = small_pair(GetParam(), 1);
  for (const char* spec : {"random:0.5", "zero-cache:tail=3", "lazy:0.75-0.25"}) {
    Conversation answers(models, spec);
    Sequence& sequence = answers.add(some_tokens(40));
    answers.prefill();
    EXPECT_EQ(inexact_rows(sequence), 0) << spec;
    EXPECT_EQ(sequence.base.exact_rows(), 0) << spec;
  }
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Refine);

}  // namespace
}  // namespace kvcast

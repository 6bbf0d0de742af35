// What must not change an answer, to the bit: how a prompt is cut, batched or threaded, and who
// computes a row.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "prefill/strategy.h"
#include "support/small_openelm.h"
#include "support/tensors.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

/// Prefill of each prompt as one batch on fresh caches; the logits of all.
std::vector<float> prefill(const Models& models, const std::string& spec,
                           const std::vector<std::vector<int32_t>>& prompts) {
  std::vector<Sequence> sequences;
  std::vector<Sequence*> batch;
  for (const auto& prompt : prompts) {
    sequences.emplace_back(models);
    sequences.back().tokens = prompt;
  }
  for (Sequence& sequence : sequences) batch.push_back(&sequence);
  std::vector<float> logits(prompts.size() * static_cast<size_t>(models.base->config().vocab_size));
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
  return logits;
}

std::vector<float> prefill(const Models& models, const std::string& spec,
                           const std::vector<int32_t>& prompt) {
  return prefill(models, spec, std::vector<std::vector<int32_t>>{prompt});
}

/// The prompt in pieces, each on the cache that the ones before left.
std::vector<float> prefill_in_turns(const Models& models, const std::string& spec,
                                    const std::vector<int32_t>& prompt,
                                    const std::vector<size_t>& cuts) {
  Sequence sequence(models);
  Sequence* const batch[] = {&sequence};
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  PrefillWorkspace workspace;
  const auto strategy = *PrefillStrategy::parse(spec);
  for (const size_t cut : cuts) {
    sequence.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(cut));
    strategy->prefill(models, batch, logits.data(), workspace, {});
  }
  return logits;
}

/// As the scheduler does it: at most `max_rows` tokens at a time.
std::vector<float> prefill_in_steps(const Models& models, const std::string& spec,
                                    const std::vector<int32_t>& prompt, int64_t max_rows) {
  Sequence sequence(models);
  sequence.tokens = prompt;
  Sequence* const batch[] = {&sequence};
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  PrefillWorkspace workspace;
  PrefillReport report;
  const auto strategy = *PrefillStrategy::parse(spec);
  PrefillState state = PrefillState::kMore;
  while (state == PrefillState::kMore) {
    state = strategy->advance(models, sequence, max_rows, logits.data(), workspace, {}, report);
  }
  if (state == PrefillState::kLastRun) decode_step(models, batch, logits.data(), workspace);
  return logits;
}

class Equality : public testing::TestWithParam<WeightType> {};

TEST_P(Equality, ChunkedPromptEqualsWhole) {
  const Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(53);
  for (const char* spec : {"exact", "auxiliary"}) {
    const auto whole = prefill(models, spec, prompt);
    EXPECT_TRUE(prefill_in_turns(models, spec, prompt, {1, 17, 18, 40, 53}) == whole) << spec;
  }
}

TEST_P(Equality, DecodingTokenByTokenEqualsPrefill) {
  const Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(21);
  std::vector<size_t> one_by_one;
  for (size_t i = 1; i <= prompt.size(); ++i) one_by_one.push_back(i);
  for (const char* spec : {"exact", "auxiliary"}) {
    EXPECT_TRUE(prefill_in_turns(models, spec, prompt, one_by_one) == prefill(models, spec, prompt))
        << spec;
  }
}

TEST_P(Equality, ABf16CacheStaysCloseToAnF32Cache) {
  Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(90);
  for (const char* spec : {"exact", "kv-prediction"}) {
    models.kv_type = KvType::kF32;
    const auto f32 = prefill(models, spec, prompt);
    models.kv_type = KvType::kBf16;
    const double difference = relative_to_largest(prefill(models, spec, prompt), f32);
    EXPECT_GT(difference, 0.0) << spec;  // it is another cache
    EXPECT_LT(difference, is_integer(GetParam()) ? 0.05 : 0.02) << spec;
  }
}

TEST_P(Equality, An8BitCacheStaysCloseToAnF32Cache) {
  Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(90);
  for (const char* spec : {"exact", "kv-prediction"}) {
    models.kv_type = KvType::kF32;
    const auto f32 = prefill(models, spec, prompt);
    models.kv_type = KvType::kInt8;
    const double difference = relative_to_largest(prefill(models, spec, prompt), f32);
    EXPECT_GT(difference, 0.0) << spec;  // it is another cache
    EXPECT_LT(difference, is_integer(GetParam()) ? 0.05 : 0.02) << spec;
  }
}

TEST_P(Equality, AnyDivisionOfAPromptFillsAn8BitCacheAlike) {
  Models models = small_pair(GetParam(), 2);
  models.kv_type = KvType::kInt8;
  const auto prompt = some_tokens(90);
  for (const char* spec : {"exact", "auxiliary"}) {
    const auto whole = prefill(models, spec, prompt);
    EXPECT_TRUE(prefill_in_turns(models, spec, prompt, {1, 2, 40, 63, 90}) == whole) << spec;
  }
}

TEST_P(Equality, BatchEqualsOneByOne) {
  const Models models = small_pair(GetParam(), 2);
  const std::vector<std::vector<int32_t>> prompts = {some_tokens(1, 1), some_tokens(40, 2),
                                                     some_tokens(7, 3), some_tokens(2, 4),
                                                     some_tokens(96, 5)};
  for (const char* spec : {"exact", "auxiliary", "kv-prediction", "kv-prediction:tail=5",
                           "random:0.5", "static:0.5", "lazy:0.75-0.25", "zero-cache:tail=3"}) {
    const auto together = prefill(models, spec, prompts);
    const size_t vocab = together.size() / prompts.size();
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto from = together.begin() + static_cast<std::ptrdiff_t>(i * vocab);
      EXPECT_TRUE(std::vector<float>(from, from + static_cast<std::ptrdiff_t>(vocab)) ==
                  prefill(models, spec, prompts[i]))
          << spec << ", prompt " << i;
    }
  }
}

TEST_P(Equality, PromptsBeyondOnePassEqualTheSameInSmallTurns) {
  const Models models = small_pair(GetParam(), 2);
  const std::vector<std::vector<int32_t>> prompts = {some_tokens(300), some_tokens(1100, 1),
                                                     some_tokens(7, 2), some_tokens(512, 3)};
  for (const char* spec : {"exact", "auxiliary", "kv-prediction:tail=16"}) {
    const auto together = prefill(models, spec, prompts);
    const size_t vocab = together.size() / prompts.size();
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto from = together.begin() + static_cast<std::ptrdiff_t>(i * vocab);
      EXPECT_TRUE(std::vector<float>(from, from + static_cast<std::ptrdiff_t>(vocab)) ==
                  prefill_in_steps(models, spec, prompts[i], 100))
          << spec << ", prompt " << i;
    }
  }
}

TEST(TokenPasses, AreOfAtMostTheRowsGivenAndReachEveryEnd) {
  constexpr int64_t kMostRows = 256;
  const Models models = small_pair(WeightType::kF32, 1);
  std::vector<Sequence> sequences;
  std::vector<Sequence*> all;
  std::vector<int64_t> ends;
  for (const int64_t end : {int64_t{100}, 2 * kMostRows + 1, int64_t{200}, kMostRows}) {
    sequences.emplace_back(models);
    ends.push_back(end);
  }
  for (Sequence& sequence : sequences) all.push_back(&sequence);
  std::vector<int64_t> position(all.size(), 0);
  for (const TokenPass& pass : token_passes(&Sequence::base, all, ends, kMostRows)) {
    int64_t rows = 0;
    int reaching_the_end = 0;
    for (size_t i = 0; i < pass.sequences.size(); ++i) {
      const auto s =
          static_cast<size_t>(std::find(all.begin(), all.end(), pass.sequences[i]) - all.begin());
      ASSERT_GT(pass.ends[i], position[s]);
      rows += pass.ends[i] - position[s];
      position[s] = pass.ends[i];
      reaching_the_end += pass.ends[i] == ends[s] ? 1 : 0;
    }
    EXPECT_LE(rows, kMostRows);
    EXPECT_TRUE(reaching_the_end == 0
                    ? pass.sequences.size() == 1
                    : reaching_the_end == static_cast<int>(pass.sequences.size()));
  }
  EXPECT_EQ(position, ends);
}

TEST_P(Equality, OneThreadEqualsSeveral) {
  const auto prompt = some_tokens(70);
  const Models one = small_pair(GetParam(), 1);
  for (const int threads : {2, 3, 5}) {
    const Models several = small_pair(GetParam(), threads);
    for (const char* spec : {"exact", "auxiliary", "kv-prediction:tail=9"}) {
      EXPECT_TRUE(prefill(several, spec, prompt) == prefill(one, spec, prompt))
          << spec << ", " << threads << " threads";
    }
  }
}

TEST_P(Equality, TailCarriedByTheAuxiliaryEqualsTailAfterIt) {
  const Models alone = small_pair(GetParam(), 1), together = small_pair(GetParam(), 3);
  const std::vector<std::vector<int32_t>> prompts = {some_tokens(5, 1), some_tokens(300, 2),
                                                     some_tokens(2, 3), some_tokens(12, 4)};
  for (const char* spec : {"kv-prediction", "kv-prediction:tail=3"}) {
    // Short steps carry nothing, and decode the tail.
    const auto expected = prefill_in_steps(alone, spec, prompts[1], 40);
    EXPECT_EQ(prefill(alone, spec, prompts[1]), expected) << spec;
    EXPECT_EQ(prefill_in_steps(alone, spec, prompts[1], 1000), expected) << spec;
    EXPECT_EQ(prefill_in_steps(together, spec, prompts[1], 1000), expected) << spec;
    const auto expected_batch = prefill(alone, spec, prompts);
    for (int round = 0; round < 20; ++round) {  // how much is carried by whom is chance
      ASSERT_EQ(prefill(together, spec, prompts[1]), expected) << spec << ", round " << round;
      ASSERT_EQ(prefill(together, spec, prompts), expected_batch) << spec << ", round " << round;
    }
  }
}

TEST_P(Equality, ACacheReservedForTheAnswerNeverGrows) {
  const Models models = small_pair(GetParam(), 1);
  for (const char* spec : {"exact", "kv-prediction", "auxiliary"}) {
    const auto strategy = *PrefillStrategy::parse(spec);
    Sequence sequence(models);
    Sequence* const batch[] = {&sequence};
    std::vector<float> logits(kSmallVocab);
    PrefillWorkspace workspace;
    sequence.tokens = some_tokens(60);
    reserve_answer(*strategy, models, sequence, 60, 40);
    strategy->prefill(models, batch, logits.data(), workspace, {});
    const int64_t bytes = sequence.answering_cache().bytes();
    for (int step = 0; step < 40; ++step) {
      sequence.tokens.push_back(step);
      decode_step(models, batch, logits.data(), workspace);
    }
    EXPECT_EQ(sequence.answering_cache().bytes(), bytes) << spec;
  }
  Sequence sequence(models);  // no more than the context holds
  reserve_answer(*make_exact_strategy(), models, sequence, 60, std::numeric_limits<int64_t>::max());
  Sequence whole(models);
  reserve_answer(*make_exact_strategy(), models, whole, 1600, 1);
  EXPECT_EQ(sequence.base.bytes(), whole.base.bytes());
}

TEST_P(Equality, TailOfTheWholePromptEqualsExact) {
  const Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(30);
  EXPECT_TRUE(prefill(models, "kv-prediction:tail=30", prompt) == prefill(models, "exact", prompt));
  EXPECT_TRUE(prefill(models, "kv-prediction:tail=400", prompt) ==
              prefill(models, "exact", prompt));
}

TEST_P(Equality, OneTokenPromptNeedsNoPrediction) {
  const Models models = small_pair(GetParam(), 2);
  EXPECT_TRUE(prefill(models, "kv-prediction", some_tokens(1)) ==
              prefill(models, "exact", some_tokens(1)));
}

// A prompt that comes in two turns: forecasts are made from what the auxiliary has read, which is
// the same text either way; only the last token of the first turn differs, being exact there.
TEST_P(Equality, SecondTurnForecastsWithTheWholeConversationInView) {
  const Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(40);
  Sequence sequence(models);
  Sequence* const batch[] = {&sequence};
  std::vector<float> logits(kSmallVocab);
  PrefillWorkspace workspace;
  const auto strategy = *PrefillStrategy::parse("kv-prediction");
  sequence.tokens.assign(prompt.begin(), prompt.begin() + 15);
  strategy->prefill(models, batch, logits.data(), workspace, {});
  sequence.tokens = prompt;
  const auto report = strategy->prefill(models, batch, logits.data(), workspace, {});
  EXPECT_EQ(report.predicted_tokens, 40 - 15 - 1);
  EXPECT_EQ(report.computed_tokens, 1);
  EXPECT_EQ(sequence.base.next_position(), 40);
  EXPECT_EQ(sequence.auxiliary.next_position(), 39);

  Sequence whole(models);
  Sequence* const whole_batch[] = {&whole};
  whole.tokens = prompt;
  strategy->prefill(models, whole_batch, logits.data(), workspace, {});
  for (int64_t layer = 0; layer < sequence.base.n_layers(); ++layer) {
    const auto in_turns = cached_values(sequence.base, layer);
    const auto at_once = cached_values(whole.base, layer);
    const int64_t dim = sequence.base.head_dim();
    const auto size = static_cast<int64_t>(at_once.size());
    for (int64_t i = 0; i < size; ++i) {
      const int64_t row = i / dim % 40;
      const bool computed_by_the_base = row == 14 || row == 39;  // the last token of either turn
      if (!computed_by_the_base) {
        ASSERT_EQ(in_turns[i], at_once[i]) << "layer " << layer << ", row " << row;
      }
    }
  }
}

TEST_P(Equality, StrategiesMayChangeBetweenTurns) {
  const Models models = small_pair(GetParam(), 2);
  const auto prompt = some_tokens(60);
  Sequence sequence(models);
  Sequence* const batch[] = {&sequence};
  std::vector<float> logits(kSmallVocab);
  PrefillWorkspace workspace;
  const auto turn = [&](const char* spec, size_t tokens) {
    sequence.tokens.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(tokens));
    (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
    return logits;
  };
  turn("kv-prediction", 10);
  turn("exact", 20);
  turn("kv-prediction:tail=4", 45);
  // The auxiliary reads everything itself, so what happened before must not show.
  EXPECT_TRUE(turn("auxiliary", 60) == prefill(models, "auxiliary", prompt));
}

TEST_P(Equality, StoppedPrefillLeavesTheConversationAsItWas) {
  const Models models = small_pair(GetParam(), 2);
  for (const char* spec : {"exact", "auxiliary", "kv-prediction", "random:0.5", "static:0.5",
                           "lazy:0.75-0.25", "zero-cache"}) {
    Sequence sequence(models);
    Sequence* const batch[] = {&sequence};
    std::vector<float> logits(kSmallVocab);
    PrefillWorkspace workspace;
    const auto strategy = *PrefillStrategy::parse(spec);
    sequence.tokens = some_tokens(12);
    strategy->prefill(models, batch, logits.data(), workspace, {});
    const int64_t base = sequence.base.next_position();
    const int64_t auxiliary = sequence.auxiliary.next_position();
    std::vector<int64_t> rows;
    for (int64_t layer = 0; layer < sequence.base.n_layers(); ++layer) {
      rows.push_back(sequence.base.rows(layer));
    }
    std::stop_source stopped;
    stopped.request_stop();
    sequence.tokens = some_tokens(50);
    EXPECT_TRUE(
        strategy->prefill(models, batch, logits.data(), workspace, stopped.get_token()).stopped);
    EXPECT_EQ(sequence.base.next_position(), base) << spec;
    EXPECT_EQ(sequence.auxiliary.next_position(), auxiliary) << spec;
    for (int64_t layer = 0; layer < sequence.base.n_layers(); ++layer) {
      EXPECT_EQ(sequence.base.rows(layer), rows[static_cast<size_t>(layer)]) << spec;
    }
  }
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Equality);

}  // namespace
}  // namespace kvcast

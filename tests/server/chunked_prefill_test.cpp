// Prefill in pieces ends in the same cache and logits as prefill at once.
#include <gtest/gtest.h>

#include <algorithm>

#include "prefill/strategy.h"
#include "runtime/scheduler_rounds.h"
#include "server/scheduler_recorder.h"
#include "server/tiny_bundle.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

const std::filesystem::path kBundle =
    std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

std::vector<int32_t> make_tokens(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<int32_t>((i * 37 + 11) % vocab_size));
  return tokens;
}

class ChunkedPrefillTest : public ::testing::TestWithParam<std::tuple<const char*, int64_t>> {
 protected:
  void SetUp() override {
    auto loaded = load_models(kBundle, WeightType::kF32, 1);
    ASSERT_TRUE(loaded) << loaded.error().message;
    models_ = std::move(*loaded);
  }

  std::vector<float> whole(Sequence& sequence, const PrefillStrategy& strategy) {
    std::vector<float> logits(static_cast<size_t>(models_.base->config().vocab_size));
    Sequence* const one[] = {&sequence};
    strategy.prefill(models_, one, logits.data(), workspace_, {});
    return logits;
  }

  std::vector<float> in_pieces(Sequence& sequence, const PrefillStrategy& strategy,
                               int64_t max_rows, PrefillReport& report) {
    std::vector<float> logits(static_cast<size_t>(models_.base->config().vocab_size));
    const auto rows_held = [&] {
      return std::max(sequence.base.next_position(), sequence.auxiliary.next_position());
    };
    PrefillState state = PrefillState::kMore;
    int64_t rows_run = 0;  // by the last call
    for (int calls = 0; state == PrefillState::kMore && calls < 1000; ++calls) {
      const int64_t before = rows_held();
      state = strategy.advance(models_, sequence, max_rows, logits.data(), workspace_, {}, report);
      rows_run = rows_held() - before;
      EXPECT_LE(rows_run, max_rows);
    }
    EXPECT_EQ(state, PrefillState::kLastRun);
    const auto pending =
        static_cast<int64_t>(sequence.tokens.size()) - sequence.answering_cache().next_position();
    EXPECT_GE(pending, 1);
    // The decode step that runs them belongs to the same step of the scheduler.
    EXPECT_LE(rows_run + pending, max_rows);
    Sequence* const one[] = {&sequence};
    decode_step(models_, one, logits.data(), workspace_);
    return logits;
  }

  Models models_;
  PrefillWorkspace workspace_;
};

TEST_P(ChunkedPrefillTest, EndsInTheSameCacheAndLogits) {
  const auto [spec, max_rows] = GetParam();
  const auto strategy = PrefillStrategy::parse(spec);
  ASSERT_TRUE(strategy);
  Sequence expected(models_), actual(models_);
  PrefillReport report;
  for (const int64_t turn_tokens : {29, 1, 18}) {  // a conversation of three turns
    const auto turn = make_tokens(turn_tokens, models_.base->config().vocab_size);
    expected.tokens.insert(expected.tokens.end(), turn.begin(), turn.end());
    actual.tokens = expected.tokens;
    const auto expected_logits = whole(expected, **strategy);
    const auto logits = in_pieces(actual, **strategy, max_rows, report);
    EXPECT_LT(relative_to_largest(logits, expected_logits), 1e-5) << spec << " " << max_rows;
    EXPECT_EQ(actual.base.next_position(), expected.base.next_position());
    EXPECT_EQ(actual.answerer, expected.answerer);
  }
  const int64_t layers = expected.answering_cache().n_layers();
  for (int64_t layer = 0; layer < layers; ++layer) {
    EXPECT_LT(largest_difference(cached_values(actual.answering_cache(), layer),
                                 cached_values(expected.answering_cache(), layer)),
              1e-4);
  }
  EXPECT_FALSE(report.stopped);
}

INSTANTIATE_TEST_SUITE_P(Strategies, ChunkedPrefillTest,
                         ::testing::Combine(::testing::Values("exact", "auxiliary", "kv-prediction",
                                                              "kv-prediction:tail=7"),
                                            ::testing::Values(1, 4, 7, 64)));

/// How many calls read `tokens` more of a sequence's prompt, at most `max_rows` rows each.
int64_t steps_for(const Models& models, Sequence& sequence, int64_t tokens, int64_t max_rows) {
  const auto strategy = *PrefillStrategy::parse("kv-prediction:tail=7");
  const int64_t vocab_size = models.base->config().vocab_size;
  sequence.tokens = make_tokens(std::ssize(sequence.tokens) + tokens, vocab_size);
  std::vector<float> logits(static_cast<size_t>(vocab_size));
  PrefillWorkspace workspace;
  PrefillReport report;
  PrefillState state = PrefillState::kMore;
  int64_t steps = 0;
  for (; state == PrefillState::kMore && steps < 100; ++steps) {
    state = strategy->advance(models, sequence, max_rows, logits.data(), workspace, {}, report);
  }
  Sequence* const one[] = {&sequence};
  decode_step(models, one, logits.data(), workspace);
  return steps;
}

TEST(ChunkedForecast, TakesNoMoreStepsThanItsRowsNeed) {
  auto models = load_models(kBundle, WeightType::kF32, 1);
  ASSERT_TRUE(models);
  Sequence sequence(*models);
  EXPECT_EQ(steps_for(*models, sequence, 20, 20), 1);
  // A later turn's first step is the auxiliary's, which has not read the last tail.
  EXPECT_EQ(steps_for(*models, sequence, 15, 15), 2);
  EXPECT_EQ(steps_for(*models, sequence, 15, 14), 3);
  Sequence longer(*models);
  EXPECT_EQ(steps_for(*models, longer, 40, 39), 2);
  Sequence longest(*models);
  EXPECT_EQ(steps_for(*models, longest, 40, 16), 3);
}

TEST(ChunkedPrefill, CopyingAStoredPrefixTakesSomeOfAStepsRows) {
  constexpr int64_t kChunk = 32;
  const TinyBundle bundle;
  const auto model = Model::load(bundle.path(), {.dtype = Dtype::kF32, .threads = 1});
  ASSERT_TRUE(model) << model.error().message;
  SchedulerOptions options;
  options.idle_chunk_tokens = kChunk;
  auto rounds = *SchedulerRounds::make(*model, options);
  const auto submit = [&](int64_t prompt_tokens) {
    EngineRequest request;
    request.prompt = make_tokens(prompt_tokens, 400);
    request.prefill = "exact";
    request.max_tokens = 1;
    ASSERT_TRUE(rounds->submit(std::move(request), std::make_shared<Recorder>(1)));
  };
  submit(128);
  while (!rounds->idle()) rounds->round();
  submit(250);
  const auto rows_after_a_round = [&] {
    rounds->round();
    return rounds->running().front()->choices.front()->sequence.base.next_position();
  };
  const int64_t first = rows_after_a_round(), second = rows_after_a_round();
  const int64_t cached = rounds->running().front()->timings.cached_tokens;
  EXPECT_GE(cached, 120);
  EXPECT_GT(first, cached);
  EXPECT_LT(first, cached + kChunk);
  EXPECT_EQ(second, first + kChunk);
}

TEST(KVCacheCopy, TakesTheFirstRowsOnly) {
  auto models = load_models(kBundle, WeightType::kF32, 1);
  ASSERT_TRUE(models);
  PrefillWorkspace workspace;
  Sequence sequence(*models);
  sequence.tokens = make_tokens(20, models->base->config().vocab_size);
  std::vector<float> logits(static_cast<size_t>(models->base->config().vocab_size));
  Sequence* const one[] = {&sequence};
  make_exact_strategy()->prefill(*models, one, logits.data(), workspace, {});

  KVCache copy(models->base->config());
  copy.copy_from(sequence.base, 20);
  copy.copy_from(sequence.base, 13);
  EXPECT_EQ(copy.next_position(), 13);
  sequence.base.truncate(13);
  for (int64_t layer = 0; layer < copy.n_layers(); ++layer) {
    EXPECT_EQ(cached_values(copy, layer), cached_values(sequence.base, layer));
  }
}

}  // namespace
}  // namespace kvcast

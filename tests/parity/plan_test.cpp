// Bundles of format 2: exact layers, sink tokens, other inputs than keys and values.
#include <gtest/gtest.h>

#include "prefill/forecast_run.h"
#include "support/small_openelm.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

constexpr int64_t kLayers = 6;

/// The first `exact_layers` are exact, the others read `input`.
ForecastPlan plan_of(int64_t exact_layers, int64_t sink_tokens, ForecastInput input) {
  ForecastPlan plan;
  plan.exact_layers = exact_layers;
  plan.sink_tokens = sink_tokens;
  plan.inputs.assign(kLayers, input);
  return plan;
}

Models models_of(const ForecastPlan& plan, WeightType type = WeightType::kF32) {
  const ModelConfig base = small_openelm(kLayers, 96), auxiliary = small_openelm(3, 64);
  Models models =
      random_models(base, plan.auxiliary_layers() > 0 ? &auxiliary : nullptr, plan, type, 2);
  if (!models.predictor) models.predictor = Predictor::random(base, {}, plan, type, 2, 3);
  models.plan = plan;
  return models;
}

std::vector<float> prefill(const Models& models, const std::string& spec,
                           const std::vector<std::vector<int32_t>>& prompts) {
  std::vector<Sequence> sequences;
  std::vector<Sequence*> batch;
  for (const auto& prompt : prompts) {
    sequences.emplace_back(models);
    sequences.back().tokens = prompt;
  }
  for (Sequence& sequence : sequences) batch.push_back(&sequence);
  std::vector<float> logits(prompts.size() * kSmallVocab);
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
  return logits;
}

/// As the scheduler does it: at most `max_rows` tokens at a time, after an earlier turn.
std::vector<float> prefill_in_steps(const Models& models, const std::string& spec,
                                    const std::vector<int32_t>& prompt, int64_t max_rows) {
  Sequence sequence(models);
  sequence.tokens = prompt;
  Sequence* const batch[] = {&sequence};
  std::vector<float> logits(kSmallVocab);
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

constexpr ForecastInput kNoInput;
const std::vector<ForecastInput> kInputs = {
    {.reader = PromptReader::kBase, .layer = 2, .kind = InputKind::kResidual},
    {.reader = PromptReader::kBase, .layer = 1, .kind = InputKind::kJoint},
    {.reader = PromptReader::kBase, .layer = 0, .kind = InputKind::kKeyValue},
    {.reader = PromptReader::kAuxiliary, .layer = 2, .kind = InputKind::kResidual},
    {.reader = PromptReader::kAuxiliary, .layer = 1, .kind = InputKind::kJoint},
    {.reader = PromptReader::kBase, .layer = 2, .kind = InputKind::kResidual, .earlier = {0}},
    {.reader = PromptReader::kAuxiliary,
     .layer = 2,
     .kind = InputKind::kResidual,
     .earlier = {0, 1}},
};

TEST(Plan, AllLayersExactIsExactPrefill) {
  const Models models = models_of(plan_of(kLayers, 4, kNoInput));
  for (const size_t tokens : {1U, 2U, 4U, 5U, 6U, 90U, 300U}) {
    const auto prompt = some_tokens(tokens);
    const auto exact = prefill(models, "exact", {prompt});
    EXPECT_EQ(prefill(models, "kv-prediction", {prompt}), exact) << tokens;
    EXPECT_EQ(prefill(models, "kv-prediction:tail=16", {prompt}), exact) << tokens;
  }
}

TEST(Plan, APromptOfSinkTokensIsExact) {
  for (const ForecastInput& input : kInputs) {
    const Models models = models_of(plan_of(3, 12, input));
    const auto prompt = some_tokens(13);
    EXPECT_EQ(prefill(models, "kv-prediction", {prompt}), prefill(models, "exact", {prompt}));
    const auto longer = some_tokens(40);
    EXPECT_GT(largest_difference(prefill(models, "kv-prediction", {longer}),
                                 prefill(models, "exact", {longer})),
              1e-3);  // there something is forecast
  }
}

/// With the tail, where that is short, or before it: what is exact is the same.
TEST(Plan, TheFirstPositionsAreTheBasesOwn) {
  for (const ForecastInput& input : kInputs) {
    const Models models = models_of(plan_of(3, 4, input));
    const auto prompt = some_tokens(90);
    Sequence exact(models);
    exact.tokens = prompt;
    Sequence* const one[] = {&exact};
    std::vector<float> logits(kSmallVocab);
    PrefillWorkspace workspace;
    (*PrefillStrategy::parse("exact"))->prefill(models, one, logits.data(), workspace, {});
    for (const int64_t tail : {1, 16, 17}) {
      const auto strategy = *PrefillStrategy::parse("kv-prediction:tail=" + std::to_string(tail));
      Sequence sequence(models);
      sequence.tokens = prompt;
      Sequence* const batch[] = {&sequence};
      const PrefillReport report = strategy->prefill(models, batch, logits.data(), workspace, {});
      EXPECT_EQ(report.computed_tokens, 4 + tail);
      EXPECT_EQ(report.predicted_tokens, 90 - 4 - tail);
      EXPECT_EQ(sequence.base.next_position(), 90);
      EXPECT_EQ(sequence.base.exact_rows(), 4);
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        const auto own = cached_values(exact.base, layer);
        const auto forecast = cached_values(sequence.base, layer);
        ASSERT_EQ(own.size(), forecast.size());
        const size_t head = own.size() / 90;  // elements of a row of all heads
        const int64_t head_dim = models.base->config().head_dim;
        const size_t heads = head / static_cast<size_t>(head_dim);
        for (size_t h = 0; h < heads; ++h) {
          const auto first = own.begin() + static_cast<int64_t>(h) * 90 * head_dim;
          EXPECT_TRUE(std::equal(first, first + 4 * head_dim,
                                 forecast.begin() + static_cast<int64_t>(h) * 90 * head_dim))
              << layer << " " << tail;
        }
      }
    }
  }
}

TEST(Plan, WhatIsStoppedLeavesNothingOfTheFirstPositions) {
  const Models models = models_of(plan_of(3, 4, kInputs[0]));
  Sequence sequence(models);
  sequence.tokens = some_tokens(90);
  std::vector<float> logits(kSmallVocab);
  PrefillWorkspace workspace;
  PrefillReport report;
  std::stop_source stop;
  stop.request_stop();
  const auto strategy = *PrefillStrategy::parse("kv-prediction:tail=16");
  strategy->advance(models, sequence, 1000, logits.data(), workspace, stop.get_token(), report);
  EXPECT_TRUE(report.stopped);
  EXPECT_EQ(sequence.base.next_position(), 0);
  EXPECT_EQ(sequence.base.rows_in_first(kLayers), 0);
}

TEST(Plan, InChunksAndInBatchesIsTheSame) {
  for (const ForecastInput& input : kInputs) {
    const Models models = models_of(plan_of(3, 4, input));
    const auto prompt = some_tokens(170), other = some_tokens(75, 1), third = some_tokens(3, 2);
    for (const std::string spec : {"kv-prediction", "kv-prediction:tail=8"}) {
      const auto whole = prefill(models, spec, {prompt});
      for (const int64_t max_rows : {1, 7, 64, 100, 1000}) {
        EXPECT_EQ(prefill_in_steps(models, spec, prompt, max_rows), whole) << spec << max_rows;
      }
      auto one_by_one = whole;
      for (const auto& each : {other, third}) {
        const auto alone = prefill(models, spec, {each});
        one_by_one.insert(one_by_one.end(), alone.begin(), alone.end());
      }
      EXPECT_EQ(prefill(models, spec, {prompt, other, third}), one_by_one) << spec;
    }
  }
}

/// Maps that copy: what a kind of input must give is then known.
TEST(Plan, ForecastsAreMapsOfTheNamedInput) {
  for (const ForecastInput& input : kInputs) {
    const Models models = models_of(plan_of(3, 0, input));
    Sequence sequence(models);
    sequence.tokens = some_tokens(20);
    Sequence* const batch[] = {&sequence};
    const int64_t ends[] = {20};
    PrefillWorkspace workspace;
    forecast_up_to(models, batch, ends, workspace);

    // The same layer's output by hand: run the reader and multiply.
    const bool of_base = input.reader == PromptReader::kBase;
    const Transformer& reader = of_base ? *models.base : *models.auxiliary;
    const ModelConfig& config = reader.config();
    std::vector<float> x;
    KVCache cache(config);
    cache.reserve(20);
    std::vector<float> rows(static_cast<size_t>(20 * config.model_dim));
    reader.embed(sequence.tokens, rows.data());
    const SequenceRows run{.cache = &cache, .rows = 20};
    RunLayersOptions options;
    options.last = input.layer + 1;
    options.output = LastLayerOutput::kNothing;
    options.on_raw_key_values = [&](const RawKeyValues& raw) {
      const bool earlier = std::ranges::count(input.earlier, raw.layer) > 0;
      if (raw.layer != input.layer && !earlier) return;
      const int64_t kv = config.kv_width(raw.layer), dim = config.model_dim;
      const float* row = raw.residual + 19 * dim;  // of the last token
      if (input.kind == InputKind::kResidual) {
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i) squares += double{row[i]} * row[i];
        const double rms = std::sqrt(squares / static_cast<double>(dim) + config.norm_eps);
        for (int64_t i = 0; i < dim; ++i) x.push_back(static_cast<float>(row[i] / rms));
        return;
      }
      if (input.kind == InputKind::kJoint) x.assign(raw.keys + 19 * kv, raw.keys + 20 * kv);
      x.insert(x.end(), raw.values + 19 * kv, raw.values + 20 * kv);
    };
    Workspace scratch;
    ASSERT_TRUE(reader.run_layers(rows.data(), std::span(&run, 1), options, scratch));

    const auto maps = models.predictor->unpacked(1);
    for (int64_t layer = 3; layer < kLayers; ++layer) {
      const auto& weight = maps.at("value_transforms." + std::to_string(layer) + ".weight");
      ASSERT_EQ(weight.shape[1], std::ssize(x));
      const auto values = cached_values(sequence.base, layer);  // [heads, rows, head_dim]
      const int64_t head_dim = models.base->config().head_dim;
      for (int64_t out = 0; out < weight.shape[0]; ++out) {
        double expected = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          expected += double{weight.values[out * x.size() + i]} * x[i];
        }
        const int64_t at = (out / head_dim * 20 + 19) * head_dim + out % head_dim;
        ASSERT_NEAR(values[at], expected, 1e-4) << input_kind_name(input.kind) << " " << out;
      }
    }
  }
}

TEST(Plan, TheAuxiliaryAloneIsRefusedWhereThereIsNone) {
  const Models models = models_of(plan_of(3, 4, kInputs[0]));
  const auto strategy = *PrefillStrategy::parse("auxiliary");
  const auto refused = check_strategy(*strategy, models);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("needs a bundle with an auxiliary that is a model"),
            std::string::npos);
}

TEST(Plan, APlainModelTakesWhatNeedsNoForecast) {
  const Models plain =
      random_models(small_openelm(kLayers, 96), nullptr, ForecastPlan(), WeightType::kF32, 1);
  for (const char* spec : {"exact", "static:0.5", "random:0.5", "lazy:0.75-0.25", "zero-cache"}) {
    EXPECT_TRUE(check_strategy(**PrefillStrategy::parse(spec), plain)) << spec;
  }
  for (const char* spec : {"kv-prediction", "auxiliary"}) {
    const auto refused = check_strategy(**PrefillStrategy::parse(spec), plain);
    ASSERT_FALSE(refused) << spec;
    EXPECT_NE(refused.error().message.find("needs a KV-prediction bundle"), std::string::npos);
  }
}

TEST(Plan, CountsWhatItRuns) {
  const ModelConfig base = small_openelm(kLayers, 96);
  const ForecastPlan plan = plan_of(3, 4, kInputs[0]);
  const PrefillCost cost = kv_prediction_cost(base, {}, plan, 101, 1);
  double predictor = 0;
  for (int64_t i = 3; i < kLayers; ++i) predictor += 2.0 * 2 * 96 * 96 * base.kv_width(i);
  EXPECT_EQ(cost.predictor, predictor);  // 96 rows: neither sinks nor the tail
  EXPECT_GT(cost.auxiliary, 0);
  EXPECT_LT(cost.total(), exact_cost(base, 101).total());
  const ForecastPlan all = plan_of(kLayers, 0, kNoInput);
  EXPECT_NEAR(kv_prediction_cost(base, {}, all, 101, 1).total(), exact_cost(base, 101).total(), 1);
}

}  // namespace
}  // namespace kvcast

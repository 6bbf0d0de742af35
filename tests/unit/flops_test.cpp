#include "model/flops.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/architectures.h"

namespace kvcast {
namespace {

using ::testing::HasSubstr;

// The slow twin: goes through every token, layer and key, and counts two operations per
// multiply-add.
struct Counter {
  double flops = 0.0;
  void vector_matrix(int64_t in, int64_t out) { flops += 2.0 * static_cast<double>(in * out); }
};

void count_keys_values(const ModelConfig& model, int64_t layer, Counter& counter) {
  counter.vector_matrix(model.model_dim, model.kv_width(layer));
  counter.vector_matrix(model.model_dim, model.kv_width(layer));
}

void count_rest_of_layer(const ModelConfig& model, int64_t layer, int64_t position,
                         Counter& counter) {
  counter.vector_matrix(model.model_dim, model.query_width(layer));
  for (int64_t key = 0; key <= position; ++key) {
    for (int64_t head = 0; head < model.layers[layer].query_heads; ++head) {
      counter.vector_matrix(model.head_dim, 1);  // q · k
      counter.vector_matrix(1, model.head_dim);  // probability * v
    }
  }
  counter.vector_matrix(model.query_width(layer), model.model_dim);
  counter.vector_matrix(model.model_dim, 2 * model.layers[layer].ffn_dim);
  counter.vector_matrix(model.layers[layer].ffn_dim, model.model_dim);
}

// The answering model runs tokens [first, count).
double count_answer(const ModelConfig& model, int64_t first, int64_t count) {
  Counter counter;
  for (int64_t layer = 0; layer < model.n_layers(); ++layer) {
    for (int64_t position = first; position < count; ++position) {
      count_keys_values(model, layer, counter);
      const bool needed = layer + 1 < model.n_layers() || position + 1 == count;
      if (needed) count_rest_of_layer(model, layer, position, counter);
    }
  }
  return counter.flops;
}

double count_auxiliary(const ModelConfig& model, int64_t count, int64_t last_mapped) {
  Counter counter;
  for (int64_t layer = 0; layer <= last_mapped; ++layer) {
    for (int64_t position = 0; position < count; ++position) {
      count_keys_values(model, layer, counter);
      if (layer < last_mapped) count_rest_of_layer(model, layer, position, counter);
    }
  }
  return counter.flops;
}

// Layers of different widths; the last auxiliary layer is not mapped.
ModelPair small_pair() {
  ModelPair pair;
  pair.base = make_openelm_config({.n_layers = 5,
                                   .model_dim = 64,
                                   .head_dim = 16,
                                   .gqa_groups = 2,
                                   .ffn_dim_divisor = 16,
                                   .vocab_size = 96});
  pair.auxiliary = make_openelm_config({.n_layers = 4,
                                        .model_dim = 48,
                                        .head_dim = 8,
                                        .gqa_groups = 3,
                                        .ffn_dim_divisor = 8,
                                        .vocab_size = 96});
  pair.plan = std::vector<int64_t>{0, 0, 1, 2, 2};
  return pair;
}

TEST(Flops, ExactCostEqualsCountingEveryProduct) {
  const ModelConfig model = small_pair().base;
  for (const int64_t tokens : {1, 2, 7, 33}) {
    const PrefillCost cost = exact_cost(model, tokens);
    EXPECT_EQ(cost.base, count_answer(model, 0, tokens)) << tokens;
    EXPECT_EQ(cost.lm_head, 2.0 * 64 * 96);
    EXPECT_EQ(cost.auxiliary + cost.predictor, 0.0);
    EXPECT_EQ(cost.total(), cost.base + cost.lm_head);
  }
}

TEST(Flops, KvPredictionCostEqualsCountingEveryProduct) {
  const ModelPair pair = small_pair();
  for (const int64_t tokens : {2, 7, 33}) {
    for (const int64_t tail : {1, 3, 6}) {
      const int64_t predicted = std::max<int64_t>(0, tokens - tail);
      const auto cost = kv_prediction_cost(pair.base, pair.auxiliary, pair.plan, tokens, tail);
      EXPECT_EQ(cost.auxiliary, count_auxiliary(pair.auxiliary, predicted, 2));
      EXPECT_EQ(cost.base, count_answer(pair.base, predicted, tokens));
      EXPECT_EQ(cost.lm_head, 2.0 * 64 * 96);
      Counter predictor;
      for (int64_t token = 0; token < predicted; ++token) {
        for (int64_t i = 0; i < 5; ++i) {
          const int64_t auxiliary_width = pair.auxiliary.kv_width(pair.plan.inputs[i].layer);
          predictor.vector_matrix(auxiliary_width, 2 * pair.base.kv_width(i));
        }
      }
      EXPECT_EQ(cost.predictor, predictor.flops);
    }
  }
}

TEST(Flops, NothingIsPredictedWhenTheTailCoversThePrompt) {
  const ModelPair pair = small_pair();
  for (const int64_t tokens : {1, 4}) {
    const auto cost = kv_prediction_cost(pair.base, pair.auxiliary, pair.plan, tokens, 4);
    EXPECT_EQ(cost.total(), exact_cost(pair.base, tokens).total());
    EXPECT_EQ(cost.auxiliary + cost.predictor, 0.0);
  }
}

TEST(Flops, PaperReductionsOfAllElevenPairs) {
  const std::vector<std::tuple<const char*, const char*, std::vector<std::string>>> pairs = {
      {"openelm-1.1b", "openelm-450m", {"2.36"}},
      {"openelm-1.1b", "openelm-270m", {"3.98"}},
      {"openelm-1.1b", "openelm-1.1b-lp-0.75", {"1.34"}},
      {"openelm-1.1b", "openelm-1.1b-lp-0.50", {"1.93"}},
      {"openelm-1.1b", "openelm-1.1b-lp-0.25", {"3.60", "3.59"}},
      {"openelm-3b", "openelm-1.1b", {"2.81"}},
      {"openelm-3b", "openelm-450m", {"6.64"}},
      {"openelm-3b", "openelm-270m", {"11.18"}},
      {"openelm-3b", "openelm-3b-lp-0.75", {"1.34"}},
      {"openelm-3b", "openelm-3b-lp-0.50", {"1.97"}},
      {"openelm-3b", "openelm-3b-lp-0.25", {"3.84"}},
  };
  for (const auto& [base, auxiliary, printed] : pairs) {
    const auto pair = named_pair(base, auxiliary);
    ASSERT_TRUE(pair) << pair.error().message;
    const auto reduction = fmt::format("{:.2f}", paper_reduction(pair->base, pair->auxiliary));
    EXPECT_THAT(printed, ::testing::Contains(reduction)) << base << " <- " << auxiliary;
  }
}

TEST(Flops, ApproximationCountsParametersTimesTokens) {
  const auto pair = *named_pair("openelm-1.1b", "openelm-270m");
  EXPECT_EQ(approximate_exact_flops(pair.base, 512), 2.0 * 1'079'891'456 * 512);
  const int64_t predictor = predictor_parameter_count(pair.base, pair.auxiliary, pair.plan);
  EXPECT_EQ(approximate_kv_prediction_flops(pair.base, pair.auxiliary, pair.plan, 512),
            2.0 * 512 * static_cast<double>(271'527'168 + predictor) + 2.0 * 1'079'891'456);
}

TEST(Flops, PredictorParametersAreWeightsAndBiases) {
  const ModelPair pair = small_pair();
  int64_t expected = 0;
  for (int64_t i = 0; i < 5; ++i) {
    const int64_t in = pair.auxiliary.kv_width(pair.plan.inputs[i].layer);
    const int64_t out = pair.base.kv_width(i);
    expected += 2 * (in * out + out);
  }
  EXPECT_EQ(predictor_parameter_count(pair.base, pair.auxiliary, pair.plan), expected);
}

TEST(NamedPair, LayerPrunedFormsOfTheBaseGetTheLayerPrunedMap) {
  EXPECT_EQ(named_pair("openelm-1.1b", "openelm-1.1b-lp-0.75")->plan.layer_map(),
            layer_pruned_layer_map(28, *layer_pruned_kept_layers(28, "0.75")));
  EXPECT_EQ(named_pair("openelm-3b", "openelm-1.1b-lp-0.50")->plan.layer_map(),
            canonical_layer_map(36, 14));
  EXPECT_EQ(named_pair("openelm-3b", "openelm-1.1b")->plan.layer_map(),
            canonical_layer_map(36, 28));
}

TEST(NamedPair, UnknownOrDeeperAuxiliariesAreNamed) {
  EXPECT_THAT(named_pair("openelm-3b", "tiny").error().message, HasSubstr("\"tiny\""));
  EXPECT_THAT(named_pair("openelm-270m", "openelm-3b").error().message,
              HasSubstr("at most the 16"));
}

TEST(Flops, AttentionIsWhatGrowsWithTheSquareOfThePrompt) {
  const ModelConfig model = *named_architecture("openelm-270m");
  for (const int64_t tokens : {1, 7, 100}) {
    double attention = 0.0;
    for (int64_t layer = 0; layer < model.n_layers(); ++layer) {
      const bool last = layer + 1 == model.n_layers();
      const auto n = static_cast<double>(tokens);
      attention +=
          4.0 * static_cast<double>(model.query_width(layer)) * (last ? n : n * (n + 1) / 2);
    }
    EXPECT_DOUBLE_EQ(exact_cost(model, tokens).attention, attention);
  }
}

TEST(Flops, AStepIsThePromptsLastTokenBehindTheOthers) {
  const ModelConfig model = *named_architecture("openelm-270m");
  EXPECT_DOUBLE_EQ(
      step_cost(model, 40).total(),
      count_answer(model, 40, 41) + 2.0 * static_cast<double>(model.model_dim * model.vocab_size));
  EXPECT_GT(step_cost(model, 40).attention, step_cost(model, 39).attention);
}

}  // namespace
}  // namespace kvcast

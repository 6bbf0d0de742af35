// A base that reads through its own first layers and trained ones: identities, and what is written.
#include "train/forecast.h"

#include <gtest/gtest.h>

#include <set>

#include "model/adapted_layers.h"
#include "model/checkpoint.h"
#include "model/transformer.h"
#include "small_models.h"
#include "support/temporary_directory.h"
#include "train/answers.h"
#include "train/low_rank.h"
#include "train/model_files.h"
#include "train/sequence_splits.h"

namespace kvcast::train {
namespace {

/// All layers of a base but its last, as the trained ones, each base layer read from the rows that
/// enter it: what is forecast is then exact.
Forecaster exact_forecaster(const Model& base, const ForecastShape& shape) {
  Forecaster exact;
  exact.reader = base;
  exact.reader.token_embeddings = exact.reader.lm_head = Tensor();
  exact.reader.layers.assign(base.layers.begin() + shape.start(), base.layers.end() - 1);
  exact.reader.config.layers.assign(base.config.layers.begin() + shape.start(),
                                    base.config.layers.end() - 1);
  for (int64_t i = shape.exact_layers; i < base.config.n_layers(); ++i) {
    exact.maps.layer_map.push_back(i - shape.start());
    const LayerTensors& layer = base.layers[static_cast<size_t>(i)];
    const int64_t width = base.config.kv_width(i);
    const auto rows = [&](int64_t first) {
      return layer.qkv_proj.narrow(0, first, width) * layer.attn_norm;
    };
    const int64_t keys = base.config.query_width(i);
    exact.maps.key_transforms.push_back({rows(keys), at::zeros({width})});
    exact.maps.value_transforms.push_back({rows(keys + width), at::zeros({width})});
  }
  return exact;
}

Model base_of(int64_t layers) { return small_model(small_config(layers), 3); }

TEST(Forecast, ExactRunIsTheForwardPass) {
  const Model base = base_of(4);
  const Tensor tokens = at::randint(0, 50, {2, 11}, at::kLong);
  const ExactRun exact = run_exact(base, {.exact_layers = 2}, tokens);
  EXPECT_LT(difference(exact.hidden, forward(base, tokens)), 1e-5);
  EXPECT_EQ(exact.cache.size(), 2U);
}

TEST(Forecast, CopiesOfTheBasesLayersForecastExactly) {
  const Model base = base_of(4);
  const Tensor tokens = at::randint(0, 50, {2, 11}, at::kLong);
  for (const int64_t exact_layers : {1, 2, 3}) {
    for (const int64_t sinks : {0, 4, 20}) {
      const ForecastShape shape{exact_layers, sinks};
      const Forecaster forecaster = exact_forecaster(base, shape);
      for (const int64_t split : {0, 1, 3, 8}) {
        const ForecastLosses losses =
            forecast_loss(base, shape, forecaster, tokens, at::roll(tokens, -1, 1),
                          {.lambda_base = 0.0, .lambda_kl = 1.0}, {.predicted_tokens = split});
        EXPECT_NEAR(losses.kl.item<double>(), 0.0, 1e-6) << exact_layers << " " << split;
        EXPECT_EQ(losses.total.item<double>(), losses.kl.item<double>());
      }
    }
  }
}

TEST(Forecast, WhatIsForecastMattersAndSinksDoNot) {
  const Model base = base_of(4);
  const Tensor tokens = at::randint(0, 50, {2, 11}, at::kLong);
  Forecaster wrong = exact_forecaster(base, {1, 0});
  for (LinearTransform& map : wrong.maps.value_transforms) map.weight = map.weight + 1.0;
  const auto kl = [&](int64_t sinks, int64_t split) {
    return forecast_loss(base, {1, sinks}, wrong, tokens, tokens,
                         {.lambda_base = 0.0, .lambda_kl = 1.0}, {.predicted_tokens = split})
        .kl.item<double>();
  };
  EXPECT_GT(kl(0, 6), 1e-4);
  EXPECT_GT(kl(4, 6), 1e-5);
  EXPECT_NEAR(kl(6, 6), 0.0, 1e-6);  // every forecast position is a sink
  EXPECT_NEAR(kl(11, 0), 0.0, 1e-6);
}

TEST(Forecast, EachSequenceHasItsOwnSplit) {
  const at::NoGradGuard no_grad;
  const Model base = base_of(4);
  const ForecastShape shape{2, 1};
  Forecaster forecaster = exact_forecaster(base, shape);
  for (LinearTransform& map : forecaster.maps.value_transforms) map.weight = map.weight * 1.5;
  const Tensor tokens = at::randint(0, 50, {3, 11}, at::kLong);
  const std::vector<int64_t> splits = {3, 10, 6};
  const auto kl = [&](const Tensor& ids, const KvpPass& pass, const SequenceSplits& own) {
    return forecast_loss(base, shape, forecaster, ids, ids, {.lambda_base = 0.0, .lambda_kl = 1.0},
                         pass, own)
        .kl.item<double>();
  };
  // Alone and with one split for all, weighed by the positions after it.
  double sum = 0.0, weight = 0.0, before = 0.0;
  for (size_t b = 0; b < splits.size(); ++b) {
    const Tensor row = tokens.narrow(0, static_cast<int64_t>(b), 1);
    const auto rest = static_cast<double>(11 - splits[b]);
    sum += rest * kl(row, {.predicted_tokens = splits[b]}, {});
    weight += rest;
    // Positions before the split see forecast rows alone, as where all of them are replaced.
    const Tensor prefix = row.narrow(1, 0, splits[b]);
    before += static_cast<double>(splits[b]) * kl(prefix, {}, {});
  }
  const Tensor own_from = at::tensor(splits, at::kLong);
  EXPECT_NEAR(kl(tokens, {}, {own_from, 0.0}), sum / weight, 1e-6);
  EXPECT_NEAR(kl(tokens, {}, {own_from, 0.25}),
              (sum + 0.25 * before) / (weight + 0.25 * (33.0 - weight)), 1e-6);
}

/// KL(p || q) of logits [rows, vocab], mean over the rows.
double mean_kl(const Tensor& p, const Tensor& q) {
  const Tensor log_p = at::log_softmax(p, -1);
  return (log_p.exp() * (log_p - at::log_softmax(q, -1))).sum(-1).mean().item<double>();
}

TEST(Forecast, WithACompanionTheLossIsThatOfBothModelsLogitsMixed) {
  const at::NoGradGuard no_grad;
  const Model base = base_of(4), companion = small_model(small_config(3, 24), 5);
  const ForecastShape shape{2, 1};
  Forecaster forecaster = exact_forecaster(base, shape);
  for (LinearTransform& map : forecaster.maps.value_transforms) map.weight = map.weight * 1.5;
  const Tensor tokens = at::randint(0, 50, {2, 11}, at::kLong), targets = at::roll(tokens, -1, 1);
  const Tensor hidden = forward(companion, tokens);
  const Companion mixed{hidden, at::cat({base.lm_head, companion.lm_head}, 1), 0.25};
  const Tensor exact = forward(base, tokens);
  const ExactRun run = run_exact(base, shape, tokens);
  for (const int64_t split : {0, 4}) {
    const KvpPass pass{.predicted_tokens = split};
    const ForecastLosses losses = forecast_loss(
        base, shape, forecaster, tokens, targets,
        {.lambda_base = 0.5, .lambda_kl = 1.0, .cross_entropy = {.z_loss = 0.0}}, pass, {}, mixed);
    const auto scored = [&](const Tensor& rows) {
      return rows.narrow(1, split, 11 - split).flatten(0, 1);
    };
    const Cache forecast =
        forecast_cache(base, shape, forecaster.maps, run,
                       forecast_sources(forecaster.reader, run, split == 0 ? 11 : split));
    const Tensor student = run_on_forecast(base, shape, run, forecast, pass).flatten(0, 1);
    const Tensor logits_mixed =
        0.75 * logits(base, student) + 0.25 * logits(companion, scored(hidden));
    const double kl = mean_kl(logits(base, scored(exact)), logits_mixed);
    const double entropy = -at::log_softmax(logits_mixed, -1)
                                .gather(-1, scored(targets).unsqueeze(-1))
                                .mean()
                                .item<double>();
    EXPECT_GT(kl, 1e-3);
    EXPECT_NEAR(losses.kl.item<double>(), kl, 1e-5) << split;
    EXPECT_NEAR(losses.base.cross_entropy.item<double>(), entropy, 1e-5) << split;
    EXPECT_NEAR(losses.total.item<double>(), 0.5 * entropy + kl, 1e-4) << split;
  }
}

TEST(Forecast, AReaderThatIsAModelIsHeldToItsOwnAnswersToo) {
  const Model base = base_of(4), reader = small_model(small_config(3, 24), 5);
  const ForecastShape shape{0, 0};
  Forecaster forecaster{reader, {}};
  for (int64_t i = 0; i < base.config.n_layers(); ++i) {
    forecaster.maps.layer_map.push_back(2);  // what enters its last layer
    const int64_t width = base.config.kv_width(i);
    const LinearTransform map{at::ones({width, 24}), at::zeros({width})};
    forecaster.maps.key_transforms.push_back(map);
    forecaster.maps.value_transforms.push_back(map);
  }
  const Tensor tokens = at::randint(0, 50, {2, 11}, at::kLong), targets = at::roll(tokens, -1, 1);
  const KvpLossOptions alone{.lambda_auxiliary = 0.0, .lambda_kl = 1.0};
  KvpLossOptions both = alone;
  both.lambda_auxiliary = 0.25;
  const SequenceSplits own{at::tensor(std::vector<int64_t>{4, 9}), 0.5};
  for (const auto& [pass, splits, read] : {std::tuple<KvpPass, SequenceSplits, int64_t>{{}, {}, 11},
                                           {{.predicted_tokens = 5}, {}, 5},
                                           {{}, own, 11}}) {
    const auto loss = [&](const KvpLossOptions& options) {
      return forecast_loss(base, shape, forecaster, tokens, targets, options, pass, splits);
    };
    const ForecastLosses without = loss(alone), with = loss(both);
    EXPECT_FALSE(without.auxiliary.total.defined());
    const CrossEntropy answers = linear_cross_entropy(
        forward(reader, tokens).narrow(1, 0, read).flatten(0, 1), reader.lm_head,
        targets.narrow(1, 0, read).flatten(), both.cross_entropy);
    EXPECT_NEAR(with.auxiliary.cross_entropy.item<double>(), answers.cross_entropy.item<double>(),
                1e-5);
    EXPECT_NEAR(with.total.item<double>(),
                without.total.item<double>() + 0.25 * answers.total.item<double>(), 1e-5);
  }
}

TEST(SequenceSplits, FallWherePromptsEnd) {
  AdaptRecipe recipe;
  recipe.split_from = 0.25;
  recipe.split_to = 0.5;
  recipe.prompt_end = {7, 8};
  recipe.prompt_end_share = 1.0;
  Tensor ids = at::zeros({3, 40}, at::kLong);
  for (const int64_t at : {4, 30}) {
    ids[0][at] = 7;
    ids[0][at + 1] = 8;
  }
  ids[1][38] = 7;
  ids[1][39] = 8;
  std::set<int64_t> first, others;
  for (int64_t step = 0; step < 60; ++step) {
    const Tensor splits = sequence_splits(recipe, step, ids);
    EXPECT_TRUE(splits.equal(sequence_splits(recipe, step, ids)));
    first.insert(splits[0].item<int64_t>());
    EXPECT_EQ(splits[1].item<int64_t>(), 39);  // the last token of the end is the base's own
    others.insert(splits[2].item<int64_t>());
  }
  EXPECT_EQ(first, (std::set<int64_t>{5, 31}));
  EXPECT_GT(others.size(), 8U);
  EXPECT_GE(*others.begin(), 10);
  EXPECT_LE(*others.rbegin(), 20);
  recipe.prompt_end_share = 0.0;
  EXPECT_LE(sequence_splits(recipe, 0, ids).max().item<int64_t>(), 20);
}

TEST(Decode, InPiecesIsTheForwardPass) {
  const at::NoGradGuard no_grad;
  const Model base = base_of(3);
  const Tensor tokens = at::randint(0, 50, {3, 12}, at::kLong);
  DecodeCache cache = decode_cache(base, 3, 20);
  std::vector<Tensor> pieces;
  for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 5}, {5, 1}, {6, 1}, {7, 5}}) {
    pieces.push_back(decode(base, tokens.narrow(1, first, count), first, cache));
  }
  EXPECT_LT(difference(at::cat(pieces, 1), forward(base, tokens)), 1e-5);
}

TEST(Answers, EachPromptGoesOnAsItWouldAlone) {
  const at::NoGradGuard no_grad;
  const Model base = base_of(3);
  const std::vector<std::vector<int32_t>> prompts = {{7, 3, 9}, {1, 2, 3, 4, 5, 6}, {8, 8, 30, 2}};
  constexpr int64_t kTokens = 6;
  const auto chats = answer(base, prompts, kTokens, /*temperature=*/0.0, /*eos=*/49);
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int64_t> ids(prompts[i].begin(), prompts[i].end());
    while (std::ssize(ids) < std::ssize(prompts[i]) + kTokens && ids.back() != 49) {
      const Tensor hidden = forward(base, at::tensor(ids, at::kLong).unsqueeze(0));
      ids.push_back(logits(base, hidden).select(1, -1).argmax(-1).item<int64_t>());
    }
    EXPECT_EQ(std::vector<int64_t>(chats[i].begin(), chats[i].end()), ids) << i;
  }
}

TEST(LowRank, StartsAsTheGivenLayersAndDiffersByProducts) {
  const auto specs = layer_parameter_specs(small_config(2));
  const TensorMap given = initial_values(specs, 5);
  TensorMap values = low_rank_start(specs, given, /*rank=*/3, 7);
  EXPECT_EQ(values.size(), low_rank_specs(specs, 3).size());
  for (const auto& [name, merged] : merged_layers(specs, given, values)) {
    EXPECT_EQ(difference(merged, given.at(name)), 0.0) << name;
  }
  const std::string name = "layers.1.ffn.proj_2.weight";
  values[name + kUpSuffix] = at::randn_like(values[name + kUpSuffix]);
  const Tensor change = merged_layers(specs, given, values).at(name) - given.at(name);
  EXPECT_LT(difference(change, at::matmul(values[name + kUpSuffix], values[name + kDownSuffix])),
            1e-5);
  EXPECT_EQ(at::linalg_matrix_rank(change, 1e-4).item<int64_t>(), 3);
}

TEST(LowRank, TheRuntimeAddsWhatTheTrainerWrote) {
  const at::NoGradGuard no_grad;
  at::manual_seed(2);
  TemporaryDirectory files;
  const ModelConfig config = small_config(3);
  const auto base = initial_values(model_parameter_specs(config), 3);
  write_model(files.path() / "base", config, base, {}, {});
  // An auxiliary of the base's first layer, its second one changed, and its third.
  const std::vector<int64_t> shared = {0, kOwnLayer, 2}, adapted = {kOwnLayer, 1, kOwnLayer};
  auto specs = layer_parameter_specs(config);
  std::erase_if(specs, [](const auto& spec) { return !spec.name.starts_with("layers.1."); });
  TensorMap values = low_rank_start(specs, base, /*rank=*/2, 7);
  for (auto& [name, value] : values) value = at::randn_like(value);
  write_adapted_layers(files.path() / "auxiliary", config, shared, values, DType::kF32);
  for (const auto& [name, value] : read_adapted_layers(files.path() / "auxiliary", shared)) {
    EXPECT_EQ(difference(value, values.at(name)), 0.0) << name;
  }
  const auto loaded = Transformer::load(files.path() / "base", WeightType::kF32, 1);
  ASSERT_TRUE(loaded) << loaded.error().message;
  const auto checkpoint = open_checkpoint(files.path() / "auxiliary");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto weights =
      load_adapted_weights(*checkpoint, {(*loaded)->weights(), shared}, adapted, std::nullopt, 2);
  ASSERT_TRUE(weights) << weights.error().message;
  const TensorMap merged = merged_layers(specs, base, values);
  const auto same = [](const PackedMatrix& matrix, const Tensor& expected) {
    std::vector<float> held = unpack(matrix, 1);
    return difference(at::from_blob(held.data(), expected.sizes()), expected) < 1e-5;
  };
  const LayerWeights& layer = weights->layers[1];
  const Tensor& qkv = merged.at("layers.1.attn.qkv_proj.weight");
  EXPECT_TRUE(same(layer.q_proj, qkv.narrow(0, 0, layer.q_proj.n())));
  EXPECT_TRUE(same(layer.v_proj, qkv.narrow(0, qkv.size(0) - layer.v_proj.n(), layer.v_proj.n())));
  EXPECT_TRUE(same(layer.proj_1, merged.at("layers.1.ffn.proj_1.weight")));
  EXPECT_TRUE(same(layer.proj_2, merged.at("layers.1.ffn.proj_2.weight")));
  EXPECT_TRUE(same(weights->layers[2].proj_2, base.at("layers.2.ffn.proj_2.weight")));
  const Tensor norm = values.at("layers.1.attn_norm.weight");
  EXPECT_EQ(layer.attn_norm,
            std::vector<float>(norm.data_ptr<float>(), norm.data_ptr<float>() + norm.numel()));
}

}  // namespace
}  // namespace kvcast::train

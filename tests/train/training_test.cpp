// Whole training runs on a corpus of a few thousand tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/json.h"
#include "model/architectures.h"
#include "train/closed_form.h"
#include "train/data/error.h"
#include "train/heldout.h"
#include "train/kvp.h"
#include "train/model_files.h"
#include "train/optimizer.h"
#include "train/pretrain.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

class Training : public testing::Test {
 protected:
  Training() { write_tiny_shards(directory_.path()); }

  [[nodiscard]] PretrainRecipe pretrain_recipe(const std::string& name) const {
    PretrainRecipe recipe;
    recipe.model.layers = 2;
    recipe.model.model_dim = 32;
    recipe.model.head_dim = 8;
    recipe.model.gqa_groups = 2;
    recipe.model.ffn_dim_divisor = 8;
    recipe.model.max_context_tokens = 64;
    fill(name, recipe);
    return recipe;
  }

  template <typename Recipe>
  void fill_data_and_output(const std::string& name, Recipe& recipe) const {
    recipe.data.shards = directory_.path() / "shards";
    recipe.data.sequence_tokens = 32;
    recipe.output.directory = directory_.path() / name;
    recipe.output.checkpoint = directory_.path() / (name + ".checkpoint");
    recipe.output.log = directory_.path() / (name + ".jsonl");
    recipe.output.dtype = Precision::kF32;
  }

  template <typename Recipe>
  void fill(const std::string& name, Recipe& recipe) const {
    fill_data_and_output(name, recipe);
    recipe.optimizer.learning_rate = 1e-2;
    recipe.optimizer.warmup_steps = 5;
    recipe.run.steps = 30;
    recipe.run.micro_batch_sequences = 4;
    recipe.run.accumulation = 2;
    recipe.run.precision = Precision::kF32;
    recipe.run.log_every = 5;
  }

  static TrainControl quiet() {
    return {.device = at::kCPU, .resume = false, .quiet = true, .stop = nullptr};
  }

  [[nodiscard]] std::vector<Json> log(const std::string& name) const {
    std::ifstream file(directory_.path() / (name + ".jsonl"));
    std::vector<Json> entries;
    for (std::string line; std::getline(file, line);) entries.push_back(Json::parse(line));
    return entries;
  }

  TemporaryDirectory directory_;
};

TEST_F(Training, PretrainingReducesTheLossAndWritesAModelDirectory) {
  auto recipe = pretrain_recipe("model");
  recipe.run.steps = 60;
  ASSERT_EQ(pretrain(recipe, quiet()), TrainOutcome::kFinished);
  const auto entries = log("model");
  ASSERT_EQ(entries.size(), 12U);
  EXPECT_GT(entries.front()["losses"]["loss"].get<double>(), 3.0);
  EXPECT_LT(entries.back()["losses"]["loss"].get<double>(), 1.0);
  EXPECT_EQ(entries.back()["tokens"], 60 * 8 * 32);
  const LoadedModel model = load_model(recipe.output.directory);
  EXPECT_EQ(model.config.vocab_size, 96);
  EXPECT_EQ(model.config.n_layers(), 2);
  EXPECT_FALSE(std::filesystem::exists(recipe.output.checkpoint));

  HeldoutOptions options;
  options.models = {recipe.output.directory};
  options.shards = recipe.data.shards;
  options.prefix_tokens = 20;
  options.suffix_tokens = 12;
  const Json scores = heldout(options)["results"][0];
  EXPECT_LT(scores["suffix_nll"]["exact"]["value"].get<double>(), 1.5);
}

TEST_F(Training, BF16FollowsF32) {
  auto recipe = pretrain_recipe("model");
  recipe.run.precision = Precision::kBF16;
  recipe.run.steps = 60;
  ASSERT_EQ(pretrain(recipe, quiet()), TrainOutcome::kFinished);
  EXPECT_LT(log("model").back()["losses"]["loss"].get<double>(), 1.1);
}

TEST_F(Training, AnInterruptedRunGoesOnExactly) {
  auto recipe = pretrain_recipe("whole");
  ASSERT_EQ(pretrain(recipe, quiet()), TrainOutcome::kFinished);

  auto cut = pretrain_recipe("cut");
  std::atomic<bool> stop{true};  // after every single step
  TrainControl control = quiet();
  control.resume = true;
  control.stop = &stop;
  for (int i = 0; i < 7; ++i) ASSERT_EQ(pretrain(cut, control), TrainOutcome::kInterrupted);
  // The checkpoint is a model directory at the same time.
  EXPECT_EQ(load_model(cut.output.checkpoint).config.n_layers(), 2);
  stop = false;
  ASSERT_EQ(pretrain(cut, control), TrainOutcome::kFinished);

  const LoadedModel a = load_model(recipe.output.directory), b = load_model(cut.output.directory);
  for (const auto& [name, value] : a.values) {
    EXPECT_TRUE(at::equal(value, b.values.at(name))) << name;
  }
}

TEST_F(Training, ACheckpointOfAnotherRunIsRefused) {
  auto recipe = pretrain_recipe("model");
  const std::atomic<bool> stop{true};
  TrainControl control = quiet();
  control.stop = &stop;
  ASSERT_EQ(pretrain(recipe, control), TrainOutcome::kInterrupted);
  control.resume = true;
  recipe.run.seed = 9;
  EXPECT_THROW(pretrain(recipe, control), TrainError);
}

TEST_F(Training, ATimeLimitEndsTheRunInGoodOrder) {
  auto recipe = pretrain_recipe("model");
  recipe.run.steps = 1000000;
  recipe.run.max_minutes = 0.02;
  ASSERT_EQ(pretrain(recipe, quiet()), TrainOutcome::kFinished);
  const auto entries = log("model");
  EXPECT_LT(entries.back()["step"].get<int64_t>(), 1000000);
  EXPECT_LT(entries.back()["learning_rate"].get<double>(), 0.3 * recipe.optimizer.learning_rate);
}

TEST_F(Training, KvpWritesABundleThatReadsBackAndLearns) {
  auto base = pretrain_recipe("base");
  base.model.layers = 3;
  base.run.steps = 60;
  ASSERT_EQ(pretrain(base, quiet()), TrainOutcome::kFinished);
  auto auxiliary = pretrain_recipe("auxiliary");
  auxiliary.model.model_dim = 16;
  ASSERT_EQ(pretrain(auxiliary, quiet()), TrainOutcome::kFinished);

  KvpRecipe recipe;
  recipe.pair.base = base.output.directory;
  recipe.pair.auxiliary = auxiliary.output.directory;
  fill("bundle", recipe);
  recipe.run.steps = 60;
  // Interrupted once, to see that a bundle's checkpoint resumes too.
  std::atomic<bool> stop{true};
  TrainControl control = quiet();
  control.resume = true;
  control.stop = &stop;
  ASSERT_EQ(train_kvp(recipe, control), TrainOutcome::kInterrupted);
  EXPECT_EQ(load_bundle(recipe.output.checkpoint).base.config.n_layers(), 3);
  stop = false;
  ASSERT_EQ(train_kvp(recipe, control), TrainOutcome::kFinished);

  const auto entries = log("bundle");
  EXPECT_LT(entries.back()["losses"]["base"].get<double>(),
            0.5 * entries.front()["losses"]["base"].get<double>());
  const LoadedBundle bundle = load_bundle(recipe.output.directory);
  EXPECT_EQ(bundle.manifest.plan.layer_map(), canonical_layer_map(3, 2));
  const LoadedModel frozen_base = load_model(base.output.directory);
  for (const auto& [name, value] : frozen_base.values) {
    EXPECT_TRUE(at::equal(value, bundle.base.values.at(name))) << name;
  }

  HeldoutOptions options;
  options.models = {recipe.output.directory};
  options.shards = recipe.data.shards;
  options.prefix_tokens = 20;
  options.suffix_tokens = 12;
  const Json scores = heldout(options)["results"][0]["suffix_nll"];
  EXPECT_LT(scores["kv-prediction:tail=1"]["value"].get<double>(), 3.0);
}

TEST_F(Training, KvpFromKeptLayersRefersToTheBase) {
  auto base = pretrain_recipe("base");
  base.model.layers = 4;
  base.run.steps = 2;
  ASSERT_EQ(pretrain(base, quiet()), TrainOutcome::kFinished);
  KvpRecipe recipe;
  recipe.pair.base = base.output.directory;
  recipe.pair.keep = "0.50";
  recipe.pair.copy_base = false;
  fill("pruned", recipe);
  recipe.run.steps = 2;
  ASSERT_EQ(train_kvp(recipe, quiet()), TrainOutcome::kFinished);
  const LoadedBundle bundle = load_bundle(recipe.output.directory);
  EXPECT_EQ(bundle.manifest.plan.layer_map(), (std::vector<int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(bundle.auxiliary.config.n_layers(), 2);
  EXPECT_FALSE(std::filesystem::exists(recipe.output.directory / "base"));
}

/// A base of 4 layers and an auxiliary of 2, trained a little.
class PairTraining : public Training {
 protected:
  PairTraining() {
    auto base = pretrain_recipe("base");
    base.model.layers = 4;
    pretrain(base, quiet());
    auto auxiliary = pretrain_recipe("auxiliary");
    auxiliary.model.model_dim = 16;
    pretrain(auxiliary, quiet());
  }

  [[nodiscard]] PairRecipe pair() const {
    PairRecipe recipe;
    recipe.base = directory_.path() / "base";
    recipe.auxiliary = directory_.path() / "auxiliary";
    return recipe;
  }

  /// Everything beyond the paper's recipe at once.
  [[nodiscard]] KvpRecipe beyond_recipe(const std::string& name) const {
    KvpRecipe recipe;
    recipe.pair = pair();
    recipe.pair.layer_map_rule = PairRecipe::LayerMapRule::kRidge;
    recipe.ridge_init = true;
    recipe.ridge = {.tokens = 2048, .held_out_tokens = 512, .regularisation = 1e-3};
    recipe.split_share = 0.5;
    recipe.tail_max = 4;
    recipe.lambda_kl = 1.0;
    recipe.consistency = Consistency::kAttentionOutput;
    recipe.auxiliary_kv_only_last = true;
    recipe.lambda_auxiliary = 0.0;
    fill(name, recipe);
    recipe.run.steps = 12;
    return recipe;
  }

  [[nodiscard]] double suffix_nll(const std::string& name, const std::string& reading) const {
    HeldoutOptions options;
    options.models = {directory_.path() / name};
    options.shards = directory_.path() / "shards";
    options.prefix_tokens = 20;
    options.suffix_tokens = 12;
    return heldout(options)["results"][0]["suffix_nll"][reading]["value"].get<double>();
  }
};

TEST_F(PairTraining, RidgeWritesABundleThatPredictsWithoutAnyTraining) {
  KvpRecipe untrained;
  untrained.pair = pair();
  fill("untrained", untrained);
  untrained.run.steps = 1;
  untrained.optimizer.learning_rate = 0.0;
  ASSERT_EQ(train_kvp(untrained, quiet()), TrainOutcome::kFinished);

  RidgeRecipe recipe;
  recipe.pair = pair();
  fill_data_and_output("ridge", recipe);
  recipe.fit = {.tokens = 4096, .held_out_tokens = 512, .regularisation = 1e-3};
  train_ridge(recipe, at::kCPU, /*quiet=*/true);
  EXPECT_EQ(load_bundle(recipe.output.directory).manifest.plan.layer_map(),
            canonical_layer_map(4, 2));
  EXPECT_LT(suffix_nll("ridge", "kv-prediction:tail=1"),
            suffix_nll("untrained", "kv-prediction:tail=1") - 0.1);
  EXPECT_DOUBLE_EQ(suffix_nll("ridge", "exact"), suffix_nll("untrained", "exact"));
}

TEST_F(PairTraining, EverySwitchTogetherLearnsAndGoesOnExactly) {
  const KvpRecipe whole = beyond_recipe("whole"), cut = beyond_recipe("cut");
  ASSERT_EQ(train_kvp(whole, quiet()), TrainOutcome::kFinished);
  EXPECT_LT(log("whole").back()["losses"]["kl"].get<double>(),
            log("whole").front()["losses"]["kl"].get<double>());

  std::atomic<bool> stop{true};
  TrainControl control = quiet();
  control.resume = true;
  control.stop = &stop;
  for (int i = 0; i < 3; ++i) ASSERT_EQ(train_kvp(cut, control), TrainOutcome::kInterrupted);
  stop = false;
  ASSERT_EQ(train_kvp(cut, control), TrainOutcome::kFinished);
  const LoadedBundle a = load_bundle(whole.output.directory), b = load_bundle(cut.output.directory);
  EXPECT_EQ(a.manifest.plan.layer_map(), b.manifest.plan.layer_map());
  for (const auto& [name, value] : a.predictor) {
    EXPECT_TRUE(at::equal(value, b.predictor.at(name))) << name;
  }
  for (const auto& [name, value] : a.auxiliary.values) {
    EXPECT_TRUE(at::equal(value, b.auxiliary.values.at(name))) << name;
  }
}

TEST_F(PairTraining, AloneTrainsTheKeptLayersOfTheBase) {
  AloneRecipe recipe;
  recipe.base = directory_.path() / "base";
  recipe.keep = "0.50";
  fill("alone", recipe);
  ASSERT_EQ(train_alone(recipe, quiet()), TrainOutcome::kFinished);
  const LoadedModel alone = load_model(recipe.output.directory), base = load_model(recipe.base);
  EXPECT_EQ(alone.config.n_layers(), 2);
  EXPECT_EQ(alone.config.layers[1].ffn_dim, base.config.layers[2].ffn_dim);
  EXPECT_LT(log("alone").back()["losses"]["loss"].get<double>(),
            log("alone").front()["losses"]["loss"].get<double>());
}

TEST_F(PairTraining, WhatDoesNotFitIsSaidBeforeAnyWeightIsRead) {
  const auto error_of = [&](const PairRecipe& pair) -> std::string {
    KvpRecipe recipe;
    recipe.pair = pair;
    fill("never", recipe);
    try {
      train_kvp(recipe, quiet());
    } catch (const TrainError& error) {
      return error.what();
    }
    return "no error";
  };
  // Another vocabulary.
  const auto other = directory_.path() / "other";
  std::filesystem::create_directory(other);
  std::string config = read_file(pair().auxiliary / "config.json");
  const size_t at = config.find("\"vocab_size\": 96");
  ASSERT_NE(at, std::string::npos);
  write_file(other / "config.json", config.replace(at, 16, "\"vocab_size\": 97"));
  write_file(other / "model.safetensors", read_file(pair().auxiliary / "model.safetensors"));
  PairRecipe wrong = pair();
  wrong.auxiliary = other;
  EXPECT_THAT(error_of(wrong), testing::HasSubstr(other.string() + " has 97"));

  // A tensor of another shape: the base's weights beside the auxiliary's config.
  write_file(other / "config.json", read_file(pair().auxiliary / "config.json"));
  write_file(other / "model.safetensors", read_file(pair().base / "model.safetensors"));
  EXPECT_THAT(error_of(wrong), testing::HasSubstr("model.safetensors: tensor"));

  // Another tokenizer of the same size.
  write_file(pair().base / "tokenizer.model", "one");
  write_file(pair().auxiliary / "tokenizer.model", "two");
  EXPECT_THAT(error_of(pair()), testing::HasSubstr("tokenizer"));
  EXPECT_FALSE(std::filesystem::exists(directory_.path() / "never.jsonl"));
}

TEST_F(Training, ErrorsComeBeforeAnyOutput) {
  auto recipe = pretrain_recipe("model");
  recipe.data.sequence_tokens = 128;  // beyond the model's context of 64
  EXPECT_THROW(pretrain(recipe, quiet()), TrainError);
  recipe = pretrain_recipe("model");
  recipe.data.shards = directory_.path() / "nowhere";
  EXPECT_THROW(pretrain(recipe, quiet()), TrainError);
  EXPECT_FALSE(std::filesystem::exists(recipe.output.directory));
}

}  // namespace
}  // namespace kvcast::train

// Bundles that `adapt` trains: what they hold, and what the runtime makes of them.
#include "train/adapt.h"

#include <gtest/gtest.h>

#include "base/mapped_file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "model/bundle.h"
#include "prefill/strategy.h"
#include "runtime/convert.h"
#include "small_models.h"
#include "support/temporary_directory.h"
#include "support/tensors.h"
#include "train/data/error.h"
#include "train/data/shard_index.h"
#include "train/model_files.h"

namespace kvcast::train {
namespace {

/// Shards of one source of random tokens.
void write_shards_of(const std::filesystem::path& directory, int64_t vocab) {
  std::filesystem::create_directories(directory);
  ShardFileWriter writer(directory / "text-00000.tok", 2);
  const Tensor tokens = at::randint(0, vocab, {6000}, at::kInt);
  writer.append(std::span(tokens.data_ptr<int32_t>(), 6000));
  writer.commit();
  write_shard_index(
      directory,
      {.vocab_size = vocab,
       .sources = {
           {.name = "text",
            .train = {.documents = 1, .tokens = 6000, .shards = {{"text-00000.tok", 6000}}}}}});
}

/// A recipe of a few steps that change nothing, over files in `files`.
AdaptRecipe idle_recipe(const TemporaryDirectory& files, const ModelConfig& config) {
  write_model(files.path() / "base", config, initial_values(model_parameter_specs(config), 3), {},
              {});
  write_shards_of(files.path() / "shards", config.vocab_size);
  AdaptRecipe recipe;
  recipe.pair.base = files.path() / "base";
  recipe.exact_layers = 2;
  recipe.trained_layers = {1, 2};
  recipe.lambda_base = 0.0;
  recipe.lambda_kl = 1.0;
  recipe.split_share = 0.5;
  recipe.ridge = {.tokens = 4000, .held_out_tokens = 500, .regularisation = 1e-9};
  recipe.data = {.shards = files.path() / "shards", .sequence_tokens = 32, .begin_with_bos = false};
  recipe.optimizer.learning_rate = 0.0;
  recipe.run = {.steps = 2, .micro_batch_sequences = 2, .precision = Precision::kF32};
  recipe.output.directory = files.path() / "bundle";
  recipe.output.checkpoint = files.path() / "checkpoint";
  recipe.output.log = files.path() / "log.jsonl";
  recipe.output.dtype = Precision::kF32;
  return recipe;
}

/// The same with an auxiliary of three layers, in `files`/small, and no layers of the base.
AdaptRecipe recipe_with_auxiliary(const TemporaryDirectory& files) {
  AdaptRecipe recipe = idle_recipe(files, small_config(4));
  const ModelConfig auxiliary = small_config(3, 24);
  write_model(files.path() / "small", auxiliary,
              initial_values(model_parameter_specs(auxiliary), 9), {}, {});
  recipe.exact_layers = 0;
  recipe.trained_layers = {};
  recipe.pair.auxiliary = files.path() / "small";
  return recipe;
}

/// The next token's logits after 40 tokens.
Tensor prefilled(const Models& models, const char* spec) {
  Sequence sequence(models);
  for (int32_t i = 0; i < 40; ++i) sequence.tokens.push_back((i * 37 + 5) % 50);
  Sequence* const batch[] = {&sequence};
  std::vector<float> out(static_cast<size_t>(models.base->config().vocab_size));
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(models, batch, out.data(), workspace, {});
  return at::tensor(out);
}

void expect_exact(const Models& models) {
  const Tensor exact = prefilled(models, "exact");
  EXPECT_LT(difference(prefilled(models, "kv-prediction"), exact),
            1e-3 * exact.abs().max().item<double>());
}

/// What may differ from whole copies: everything, or products of rank 2.
class AdaptRank : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Adapt, AdaptRank, ::testing::Values(0, 2));

TEST_P(AdaptRank, TheBundleOfWholeCopiesIsExactInTheRuntime) {
  at::manual_seed(1);
  TemporaryDirectory files;
  AdaptRecipe recipe = idle_recipe(files, small_config(4));
  recipe.rank = GetParam();
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);

  const auto models = load_models(files.path() / "bundle", WeightType::kF32, 1);
  ASSERT_TRUE(models) << models.error().message;
  EXPECT_EQ(models->shared_layers, (std::vector<int64_t>{0, kOwnLayer, kOwnLayer, 3}));
  EXPECT_NE(read_text_file(files.path() / "bundle/README.md")
                .value_or("")
                .find("copies of layers 1, 2, trained"),
            std::string::npos);
  // What is shared is there once.
  EXPECT_EQ(models->auxiliary->weights().embeddings.data().data(),
            models->base->weights().embeddings.data().data());
  expect_exact(*models);
  const auto refused = check_strategy(**PrefillStrategy::parse("auxiliary"), *models);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("an auxiliary that is a model"), std::string::npos);
}

TEST(Adapt, MapsMayReadSeveralStreams) {
  at::manual_seed(1);
  TemporaryDirectory files;
  AdaptRecipe recipe = idle_recipe(files, small_config(4));
  recipe.beside = {0};
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  const auto models = load_models(files.path() / "bundle", WeightType::kF32, 1);
  ASSERT_TRUE(models) << models.error().message;
  EXPECT_EQ(models->plan.inputs.back(),
            (ForecastInput{.layer = 3, .kind = InputKind::kResidual, .earlier = {1}}));
  expect_exact(*models);

  ASSERT_TRUE(convert({.source = files.path() / "bundle",
                       .output = files.path() / "packed",
                       .type = WeightType::kF32}));
  const auto packed = load_models(files.path() / "packed", WeightType::kF32, 1);
  ASSERT_TRUE(packed) << packed.error().message;
  EXPECT_TRUE(prefilled(*packed, "kv-prediction").equal(prefilled(*models, "kv-prediction")));

  recipe.start = files.path() / "bundle";
  recipe.output.directory = files.path() / "next";
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  recipe.beside = {};
  EXPECT_THROW((void)train_adapt(recipe, {.quiet = true}), TrainError);
  recipe.beside = {2};  // the last stream
  EXPECT_THROW((void)train_adapt(recipe, {.quiet = true}), TrainError);
}

TEST(Adapt, AnAuxiliaryThatIsTheBaseIsExactInTheRuntime) {
  at::manual_seed(1);
  struct Case {
    int64_t exact_layers, sinks;
    std::vector<int64_t> beside = {};
  };
  for (const auto& [exact_layers, sinks, beside] :
       {Case{0, 0}, Case{1, 0}, Case{2, 4}, Case{0, 0, {0, 1}}}) {
    TemporaryDirectory files;
    AdaptRecipe recipe = idle_recipe(files, small_config(4));
    recipe.exact_layers = exact_layers;
    recipe.sink_tokens = sinks;
    recipe.beside = beside;
    recipe.trained_layers = {};
    recipe.pair.auxiliary = recipe.pair.base;
    recipe.sequence_splits = true;
    ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
    const auto models = load_models(files.path() / "bundle", WeightType::kF32, 1);
    ASSERT_TRUE(models) << models.error().message;
    EXPECT_EQ(models->auxiliary->config().n_layers(), 4);
    expect_exact(*models);
  }
}

TEST(Adapt, AnAuxiliaryAsItIsIsNamedByTheBundleAndItsMapsAloneAreTrained) {
  at::manual_seed(1);
  TemporaryDirectory files;
  AdaptRecipe recipe = recipe_with_auxiliary(files);
  recipe.train_auxiliary = false;
  recipe.mix = 0.25;
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  const auto map = [&](const char* bundle) {
    const auto file = Safetensors::open(files.path() / bundle / "predictor.safetensors");
    return at::tensor(float_values(**file, "key_transforms.1.weight"));
  };
  const Json manifest = *read_json_object(files.path() / "bundle/kvcast.json");
  EXPECT_EQ(manifest["auxiliary"], "../small");
  EXPECT_EQ(manifest["training"]["mix"], 0.25);
  EXPECT_FALSE(std::filesystem::exists(files.path() / "bundle/auxiliary"));
  EXPECT_NE(read_text_file(files.path() / "bundle/README.md")
                .value_or("")
                .find("an auxiliary of 2 layers of width 24, as it is"),
            std::string::npos);

  recipe.start = files.path() / "bundle";
  recipe.optimizer.learning_rate = 1e-2;
  recipe.optimizer.warmup_steps = 0;
  recipe.output.directory = files.path() / "trained";
  recipe.output.log = files.path() / "trained.jsonl";
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  EXPECT_GT(difference(map("trained"), map("bundle")), 1e-3);
  const auto models = load_models(files.path() / "trained", WeightType::kF32, 1);
  ASSERT_TRUE(models) << models.error().message;
  EXPECT_TRUE(models->auxiliary_answers());
  const Tensor base = prefilled(*models, "kv-prediction");
  const Tensor expected = 0.75 * base + 0.25 * prefilled(*models, "auxiliary");
  EXPECT_LT(difference(prefilled(*models, "kv-prediction:mix=0.25"), expected), 1e-5);
}

TEST(Adapt, AnAuxiliaryWhoseAnswersCountIsTrainedToItsLastLayer) {
  at::manual_seed(1);
  TemporaryDirectory files;
  AdaptRecipe recipe = recipe_with_auxiliary(files);
  recipe.optimizer.learning_rate = 1e-2;
  recipe.optimizer.warmup_steps = 0;
  const auto last_layer = [&](const std::filesystem::path& model) {
    return load_model(model).values.at("layers.2.ffn.proj_2.weight");
  };
  for (const double weight : {0.0, 0.2}) {
    const std::filesystem::path bundle = files.path() / (weight > 0.0 ? "answers" : "reads");
    recipe.lambda_auxiliary = weight;
    recipe.output.directory = bundle;
    recipe.output.log = bundle.string() + ".jsonl";
    ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
    const double moved =
        difference(last_layer(bundle / "auxiliary"), last_layer(recipe.pair.auxiliary));
    EXPECT_EQ(moved > 1e-3, weight > 0.0) << moved;
  }
  EXPECT_NE(read_text_file(files.path() / "answers.jsonl").value_or("").find("\"auxiliary\":"),
            std::string::npos);
  recipe.start = files.path() / "answers";  // all of it is read back
  recipe.optimizer.learning_rate = 0.0;
  recipe.output.directory = files.path() / "next";
  recipe.output.log = files.path() / "next.jsonl";
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  EXPECT_EQ(difference(last_layer(files.path() / "next/auxiliary"),
                       last_layer(files.path() / "answers/auxiliary")),
            0.0);
}

TEST(Adapt, GoesOnFromABundleOfTheSameShape) {
  at::manual_seed(1);
  TemporaryDirectory files;
  AdaptRecipe recipe = idle_recipe(files, small_config(4));
  recipe.trained_layers = {1};
  recipe.optimizer.learning_rate = 1e-2;
  recipe.optimizer.warmup_steps = 0;
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  const auto layer = [&](const char* bundle) {
    return read_own_layers(files.path() / bundle / "auxiliary", {0, kOwnLayer, 2})
        .at("layers.1.ffn.proj_2.weight");
  };
  recipe.start = files.path() / "bundle";
  recipe.output.directory = files.path() / "next";
  recipe.output.log = files.path() / "next.jsonl";
  recipe.optimizer.learning_rate = 0.0;
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  const Tensor base = load_model(recipe.pair.base).values.at("layers.1.ffn.proj_2.weight");
  EXPECT_GT(difference(layer("bundle"), base), 1e-3);
  EXPECT_EQ(difference(layer("bundle"), layer("next")), 0.0);

  recipe.trained_layers = {1, 2};
  recipe.output.directory = files.path() / "other";
  EXPECT_THROW(train_adapt(recipe, {.quiet = true}), TrainError);
}

TEST(Adapt, GoesOnFromAPackedBundle) {
  at::manual_seed(1);
  TemporaryDirectory files;
  AdaptRecipe recipe = idle_recipe(files, small_config(4));
  recipe.trained_layers = {1};
  recipe.output.dtype = Precision::kF32;
  recipe.optimizer.learning_rate = 1e-2;
  recipe.optimizer.warmup_steps = 0;
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  ASSERT_TRUE(convert({.source = files.path() / "bundle",
                       .output = files.path() / "packed",
                       .type = WeightType::kF32}));
  recipe.start = files.path() / "packed";
  recipe.output.directory = files.path() / "next";
  recipe.output.log = files.path() / "next.jsonl";
  recipe.optimizer.learning_rate = 0.0;
  ASSERT_EQ(train_adapt(recipe, {.quiet = true}), TrainOutcome::kFinished);
  const std::vector<int64_t> shared = {0, kOwnLayer, 2};
  const TensorMap next = read_own_layers(files.path() / "next/auxiliary", shared);
  for (const auto& [name, value] : read_own_layers(files.path() / "bundle/auxiliary", shared)) {
    EXPECT_EQ(difference(next.at(name), value), 0.0) << name;
  }
  const auto maps = [&](const char* bundle) {
    return Safetensors::open(files.path() / bundle / "predictor.safetensors");
  };
  const auto first = maps("bundle"), second = maps("next");
  ASSERT_TRUE(first && second);
  for (const auto& [name, view] : (*first)->tensors()) {
    EXPECT_EQ(float_values(**second, name), float_values(**first, name)) << name;
  }
}

}  // namespace
}  // namespace kvcast::train

#include "train/data/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/data/error.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

using testing::HasSubstr;

constexpr const char* kPretrain = R"(
[variables]
out = "runs"
[model]
layers = 2
model_dim = 32
[data]
shards = "${out}/shards"
[run]
steps = 10
micro_batch_sequences = 2
[output]
directory = "${out}/base/"
)";

class Recipes : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    write_file(directory_.path() / "recipe.toml", text);
    return (directory_.path() / "recipe.toml").string();
  }
  PretrainRecipe read(const std::string& text, const Settings& settings = {}) {
    return read_pretrain_recipe(write(text), settings);
  }
  std::string error_of(const std::string& text, const Settings& settings = {}) {
    try {
      read(text, settings);
    } catch (const TrainError& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryDirectory directory_;
};

TEST_F(Recipes, FillInDefaultsAndVariables) {
  const auto recipe = read(kPretrain);
  EXPECT_EQ(recipe.model.layers, 2);
  EXPECT_EQ(recipe.data.shards, "runs/shards");
  EXPECT_EQ(recipe.output.directory, "runs/base");
  EXPECT_EQ(recipe.output.checkpoint, "runs/base.checkpoint");
  EXPECT_EQ(recipe.output.log, "runs/base.jsonl");
  EXPECT_EQ(recipe.optimizer.beta2, 0.95);
  EXPECT_EQ(recipe.run.precision, Precision::kBF16);
}

TEST_F(Recipes, SettingsReplaceVariablesAndKeys) {
  const auto recipe = read(kPretrain, {{"out", "/elsewhere"},
                                       {"run.steps", "3"},
                                       {"run.precision", "f32"},
                                       {"optimizer.learning_rate", "0.5"}});
  EXPECT_EQ(recipe.data.shards, "/elsewhere/shards");
  EXPECT_EQ(recipe.run.steps, 3);
  EXPECT_EQ(recipe.run.precision, Precision::kF32);
  EXPECT_EQ(recipe.optimizer.learning_rate, 0.5);
}

TEST_F(Recipes, ErrorsNameFileKeyAndExpectation) {
  const std::string good = kPretrain;
  EXPECT_THAT(error_of(good + "[optimizer]\nlearnin_rate = 1.0\n"),
              testing::AllOf(HasSubstr("recipe.toml"), HasSubstr("optimizer.learnin_rate"),
                             HasSubstr("learning_rate")));
  EXPECT_THAT(error_of(good + "[optimiser]\n"), HasSubstr("optimiser: unknown key"));
  EXPECT_THAT(error_of(good, {{"run.steps", "0"}}),
              HasSubstr("run.steps: expected a whole number"));
  EXPECT_THAT(error_of(good, {{"run.steps", "many"}}), HasSubstr("run.steps"));
  EXPECT_THAT(error_of(good, {{"run.precision", "f16"}}), HasSubstr("\"f32\" or \"bf16\""));
  EXPECT_THAT(error_of(good, {{"data.shards", "${nowhere}/x"}}), HasSubstr("--set nowhere="));
  EXPECT_THAT(error_of("[model]\nlayers = 2\nmodel_dim = 32\n"),
              HasSubstr("expected a table [data]"));
  EXPECT_THAT(error_of("[model\n"), testing::AllOf(HasSubstr("line 1"), HasSubstr("not TOML")));
}

TEST_F(Recipes, KvpTakesOneKindOfAuxiliary) {
  const std::string rest =
      "[data]\nshards = \"s\"\n[run]\nsteps = 1\nmicro_batch_sequences = 1\n[output]\ndirectory = "
      "\"d\"\n";
  const auto recipe = read_kvp_recipe(write("[kvp]\nbase = \"b\"\nkeep = \"0.50\"\n" + rest), {});
  EXPECT_EQ(recipe.keep, "0.50");
  EXPECT_LT(recipe.lambda_consistency, 0.0);
  EXPECT_THROW(read_kvp_recipe(write("[kvp]\nbase = \"b\"\n" + rest), {}), TrainError);
  EXPECT_THROW(read_kvp_recipe(
                   write("[kvp]\nbase = \"b\"\nkeep = \"0.50\"\nauxiliary = \"a\"\n" + rest), {}),
               TrainError);
}

TEST_F(Recipes, TheShippedOnesParse) {
  const std::filesystem::path recipes =
      std::filesystem::path(KVCAST_SOURCE_DIR) / "recipes" / "first-light";
  const Settings settings = {{"data", "corpus"}, {"out", "out"}};
  for (const char* name : {"data.toml", "smoke.toml"}) {
    EXPECT_EQ(read_tokenizer_recipe(recipes / name, settings).output, "out/tokenizer.model");
    EXPECT_EQ(read_shards_recipe(recipes / name, settings).output, "out/shards");
  }
  EXPECT_EQ(read_pretrain_recipe(recipes / "base.toml", settings).output.directory, "out/base");
  EXPECT_EQ(read_pretrain_recipe(recipes / "auxiliary.toml", settings).output.directory,
            "out/auxiliary");
  EXPECT_EQ(read_kvp_recipe(recipes / "kvp.toml", settings).base, "out/base");
}

}  // namespace
}  // namespace kvcast::train

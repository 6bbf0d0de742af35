#include "train/data/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/data/error.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

using testing::AllOf;
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

TEST_F(Recipes, AnIncludedFileGivesWhatTheRecipeDoesNotSay) {
  write_file(directory_.path() / "long.toml",
             "[variables]\nout = \"elsewhere\"\n[run]\nsteps = 500\nmicro_batch_sequences = 4\n"
             "[optimizer]\nlearning_rate = 0.5\n");
  const std::string text = "include = \"${length}.toml\"\n" + std::string(kPretrain);
  const auto recipe = read(text, {{"length", "long"}, {"run.seed", "9"}});
  EXPECT_EQ(recipe.run.steps, 10);  // the recipe's own
  EXPECT_EQ(recipe.run.seed, 9U);
  EXPECT_EQ(recipe.optimizer.learning_rate, 0.5);
  EXPECT_EQ(recipe.output.directory, "runs/base");
  EXPECT_THAT(error_of(text, {{"length", "short"}}), HasSubstr("short.toml"));
}

/// The paper's eleven pairs with each of their settings.
TEST_F(Recipes, OfThePaperAreWhole) {
  const Settings common = {{"weights", "w"}, {"shards", "s"}, {"out", "o"}};
  int pairs = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(KVCAST_SOURCE_DIR) + "/recipes/paper")) {
    const auto name = entry.path().stem().string();
    if (!name.starts_with("kvp-")) continue;
    ++pairs;
    const KvpRecipe paper = read_kvp_recipe(entry.path(), common);
    EXPECT_EQ(paper.output.directory, "o/paper/" + name);
    EXPECT_EQ(paper.lambda_kl, 0.0);
    EXPECT_EQ(paper.run.micro_batch_sequences * paper.run.accumulation, 1024) << name;
    EXPECT_EQ(paper.pair.keep.empty(), name.starts_with("kvp-c-"));
    Settings other = common;
    other.emplace_back("settings", "ours");
    EXPECT_EQ(read_kvp_recipe(entry.path(), other).lambda_kl, 1.0);
    other.back().second = "alone";
    const AloneRecipe alone = read_alone_recipe(entry.path(), other);
    EXPECT_EQ(alone.keep, paper.pair.keep);
    EXPECT_EQ(alone.auxiliary, paper.pair.auxiliary);
    EXPECT_EQ(alone.run.steps, paper.run.steps);
    EXPECT_EQ(recipe_kind(entry.path(), other), RecipeKind::kAlone);
  }
  EXPECT_EQ(pairs, 11);
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
  EXPECT_EQ(recipe.pair.keep, "0.50");
  EXPECT_LT(recipe.lambda_consistency, 0.0);
  EXPECT_THROW(read_kvp_recipe(write("[kvp]\nbase = \"b\"\n" + rest), {}), TrainError);
  EXPECT_THROW(read_kvp_recipe(
                   write("[kvp]\nbase = \"b\"\nkeep = \"0.50\"\nauxiliary = \"a\"\n" + rest), {}),
               TrainError);
}

TEST_F(Recipes, KvpIsThePapersUnlessASwitchSaysOtherwise) {
  const std::string head = "[kvp]\nbase = \"b\"\nauxiliary = \"a\"\n";
  const std::string rest =
      "[data]\nshards = \"s\"\n[run]\nsteps = 1\nmicro_batch_sequences = 1\n[output]\ndirectory = "
      "\"d\"\n";
  const auto parse = [&](const std::string& keys) {
    return read_kvp_recipe(write(head + keys + rest), {});
  };
  const KvpRecipe paper = parse("");
  EXPECT_FALSE(paper.ridge_init);
  EXPECT_EQ(paper.split_share, 0.0);
  EXPECT_EQ(paper.lambda_kl, 0.0);
  EXPECT_EQ(paper.consistency, Consistency::kL1);
  EXPECT_EQ(paper.pair.layer_map_rule, PairRecipe::LayerMapRule::kPaper);
  const KvpRecipe ours = parse(
      "predictor_init = \"ridge\"\nsplit_share = 0.5\nlambda_kl = 1\nconsistency = "
      "\"attention-output\"\nlayer_map = \"ridge\"\nauxiliary_kv_only_last = true\n");
  EXPECT_TRUE(ours.ridge_init);
  EXPECT_EQ(ours.split_share, 0.5);
  EXPECT_EQ(ours.lambda_auxiliary, 0.0);
  EXPECT_EQ(ours.consistency, Consistency::kAttentionOutput);
  EXPECT_EQ(ours.pair.layer_map_rule, PairRecipe::LayerMapRule::kRidge);
  EXPECT_EQ(parse("layer_map = [0, 1]\n").pair.layer_map, (std::vector<int64_t>{0, 1}));
  EXPECT_THROW(parse("layer_map = \"best\"\n"), TrainError);
  EXPECT_THROW(parse("consistency = \"l2\"\n"), TrainError);
  EXPECT_THROW(parse("auxiliary_kv_only_last = true\nlambda_auxiliary = 1.0\n"), TrainError);
}

TEST_F(Recipes, ARangeOfWhichOneEndIsGivenDoesNotEndBeforeItBegins) {
  const std::string rest =
      "[data]\nshards = \"s\"\n[run]\nsteps = 1\nmicro_batch_sequences = 1\n[output]\ndirectory = "
      "\"d\"\n";
  EXPECT_THROW(
      read_kvp_recipe(write("[kvp]\nbase = \"b\"\nkeep = \"0.50\"\nsplit_from = 0.9\n" + rest), {}),
      TrainError);
  EXPECT_THROW(read_prompts_recipe(
                   write("[prompts]\nmodel = \"m\"\noutput = \"o\"\ninstructions = [\"{text}\"]\n"
                         "least_words = 200\n[[source]]\npath = \"a.txt\"\n"),
                   {}),
               TrainError);
}

TEST_F(Recipes, AdaptMixesWithAnAuxiliaryThatStaysAsItIs) {
  std::string text = kPretrain;
  text.replace(text.find("[model]"), text.find("[data]") - text.find("[model]"),
               "[adapt]\nbase = \"base\"\nexact_layers = 0\nauxiliary = \"small\"\n");
  const auto read_adapt = [&](const Settings& settings) {
    return read_adapt_recipe(write(text), settings);
  };
  EXPECT_TRUE(read_adapt({}).train_auxiliary);
  EXPECT_EQ(read_adapt({}).mix, 0.0);
  const AdaptRecipe frozen = read_adapt({{"adapt.train_auxiliary", "false"}, {"adapt.mix", "0.5"}});
  EXPECT_FALSE(frozen.train_auxiliary);
  EXPECT_EQ(frozen.mix, 0.5);
  const auto error_with = [&](const Settings& settings) -> std::string {
    try {
      read_adapt(settings);
    } catch (const TrainError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(read_adapt({{"adapt.beside", "[0, 2]"}}).beside, (std::vector<int64_t>{0, 2}));
  for (const char* wrong : {"[2, 0]", "[1, 1]", "[-1]"}) {
    EXPECT_THAT(error_with({{"adapt.beside", wrong}}),
                AllOf(HasSubstr("beside"), HasSubstr("ascending")));
  }
  EXPECT_THAT(error_with({{"adapt.mix", "0.5"}}),
              AllOf(HasSubstr("recipe.toml"), HasSubstr("mix"), HasSubstr("as it is")));
  EXPECT_THAT(error_with({{"adapt.train_auxiliary", "false"}, {"adapt.mix", "1"}}),
              AllOf(HasSubstr("recipe.toml"), HasSubstr("mix")));
  text.replace(text.find("exact_layers"), text.find("[data]") - text.find("exact_layers"),
               "exact_layers = 2\ntrained_layers = [1]\n");
  EXPECT_THAT(error_with({{"adapt.train_auxiliary", "false"}}),
              AllOf(HasSubstr("train_auxiliary"), HasSubstr("reads as it is")));
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
  EXPECT_EQ(read_kvp_recipe(recipes / "kvp.toml", settings).pair.base, "out/base");
}

TEST_F(Recipes, TheFamilysParse) {
  const std::filesystem::path recipes =
      std::filesystem::path(KVCAST_SOURCE_DIR) / "recipes" / "family";
  const Settings settings = {{"out", "out"}, {"name", "x"}};
  const auto with = [&](const std::string& key, const std::string& value) {
    Settings more = settings;
    more.emplace_back(key, value);
    return more;
  };
  for (const char* name : {"base", "auxiliary-23m", "auxiliary-10m"}) {
    EXPECT_EQ(
        read_pretrain_recipe(recipes / (std::string(name) + ".toml"), settings).output.directory,
        std::string("out/") + name);
  }
  const KvpRecipe paper =
      read_kvp_recipe(recipes / "kvp-paper.toml", with("kvp.auxiliary", "out/auxiliary-10m"));
  const KvpRecipe ours = read_kvp_recipe(recipes / "kvp.toml", with("kvp.keep", "\"0.50\""));
  EXPECT_EQ(ours.pair.keep, "0.50");
  EXPECT_FALSE(paper.ridge_init);
  EXPECT_TRUE(ours.ridge_init);
  const AloneRecipe alone =
      read_alone_recipe(recipes / "alone.toml", with("alone.auxiliary", "out/auxiliary-10m"));
  // Equal tokens in equal order for the three.
  for (const RunRecipe& run : {paper.run, ours.run}) {
    EXPECT_EQ(run.steps, alone.run.steps);
    EXPECT_EQ(run.seed, alone.run.seed);
    EXPECT_EQ(run.micro_batch_sequences, alone.run.micro_batch_sequences);
  }
  EXPECT_EQ(read_ridge_recipe(recipes / "ridge.toml", with("ridge.auxiliary", "out/alone-10m"))
                .output.directory,
            "out/x");
}

}  // namespace
}  // namespace kvcast::train

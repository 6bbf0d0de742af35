#include "model/bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/json.h"
#include "model/plan_json.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const std::filesystem::path kGolden =
    std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

// A bundle directory whose base (5 layers) and auxiliary (3 layers) have configs only.
class BundleTest : public ::testing::Test {
 protected:
  BundleTest() {
    std::filesystem::create_directories(bundle_.path() / "kvp");
    for (const char* part : {"base", "auxiliary"}) {
      std::filesystem::copy(kGolden / part / "config.json", copy_target(part));
    }
  }

  std::filesystem::path copy_target(const char* part) {
    std::filesystem::create_directories(bundle_.path() / "kvp" / part);
    return bundle_.path() / "kvp" / part / "config.json";
  }

  Result<BundleManifest> read(const Json& manifest) {
    bundle_.write("kvp/kvcast.json", manifest.dump());
    return read_bundle_manifest(bundle_.path() / "kvp");
  }

  std::string error_with(const std::string& key, const Json& value) {
    Json manifest = manifest_;
    manifest[key] = value;
    const auto result = read(manifest);
    return result ? "" : result.error().message;
  }

  TemporaryDirectory bundle_;
  Json manifest_ = {{"format", 1},
                    {"base", "base"},
                    {"auxiliary", "auxiliary"},
                    {"predictor", "predictor.safetensors"},
                    {"layer_map", {0, 0, 1, 1, 2}}};
};

TEST_F(BundleTest, ReadsTheGoldenBundle) {
  const auto manifest = read_bundle_manifest(kGolden);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->base, kGolden / "base");
  EXPECT_EQ(manifest->auxiliary, kGolden / "auxiliary");
  EXPECT_EQ(manifest->predictor, kGolden / "predictor.safetensors");
  EXPECT_THAT(manifest->plan.layer_map(), ElementsAre(0, 0, 1, 1, 2));
  EXPECT_EQ(manifest->default_prefill, "");
}

TEST_F(BundleTest, IsRecognisedByItsManifest) {
  EXPECT_TRUE(is_bundle(kGolden));
  EXPECT_FALSE(is_bundle(kGolden / "base"));
  EXPECT_FALSE(is_bundle(kGolden / "nowhere"));
}

TEST_F(BundleTest, UnknownKeysAreIgnoredAndDefaultPrefillIsRead) {
  manifest_["trained_with"] = {{"tokens", 5}};
  manifest_["default_prefill"] = "kv-prediction:tail=16";
  const auto manifest = read(manifest_);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->default_prefill, "kv-prediction:tail=16");
}

TEST_F(BundleTest, BaseMayBeSharedThroughTheParentDirectory) {
  std::filesystem::rename(bundle_.path() / "kvp" / "base", bundle_.path() / "shared");
  manifest_["base"] = "../shared";
  const auto manifest = read(manifest_);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->base, bundle_.path() / "shared");
}

TEST_F(BundleTest, EveryMissingKeyIsNamed) {
  for (const char* key : {"format", "base", "auxiliary", "predictor", "layer_map"}) {
    Json manifest = manifest_;
    manifest.erase(key);
    const auto result = read(manifest);
    ASSERT_FALSE(result) << key;
    EXPECT_THAT(result.error().message,
                AllOf(HasSubstr("kvcast.json"), HasSubstr(key), HasSubstr("is missing")));
  }
}

/// Format 2: the base's first two layers are exact, three are forecast.
Json second_format() {
  return {{"format", 2},
          {"base", "base"},
          {"auxiliary", "auxiliary"},
          {"predictor", "predictor.safetensors"},
          {"sink_tokens", 4},
          {"exact_layers", 2},
          {"inputs",
           {{{"from", "base"}, {"layer", 1}, {"kind", "residual"}},
            {{"from", "auxiliary"}, {"layer", 2}, {"kind", "joint"}},
            {{"from", "auxiliary"}, {"layer", 0}, {"kind", "key-value"}}}}};
}

TEST_F(BundleTest, ReadsTheSecondFormatAndWritesTheSame) {
  const auto manifest = read(second_format());
  ASSERT_TRUE(manifest) << manifest.error().message;
  const ForecastPlan& plan = manifest->plan;
  EXPECT_EQ(plan.sink_tokens, 4);
  EXPECT_EQ(plan.exact_layers, 2);
  EXPECT_EQ(plan.inputs[2], (ForecastInput{PromptReader::kBase, 1, InputKind::kResidual}));
  EXPECT_EQ(plan.inputs[3], (ForecastInput{PromptReader::kAuxiliary, 2, InputKind::kJoint}));
  EXPECT_EQ(plan.inputs[4], (ForecastInput{PromptReader::kAuxiliary, 0, InputKind::kKeyValue}));
  EXPECT_EQ(plan.auxiliary_layers(), 3);
  EXPECT_TRUE(plan.layer_map().empty());
  Json written = second_format();
  for (const char* key : {"sink_tokens", "exact_layers", "inputs"}) written.erase(key);
  write_plan(plan, written);
  EXPECT_EQ(written, second_format());
}

TEST_F(BundleTest, AnInputMayBeTheStreamsOfSeveralLayers) {
  Json json = second_format();
  json["inputs"][1] = {{"from", "auxiliary"}, {"layers", {0, 2}}, {"kind", "residual"}};
  const auto manifest = read(json);
  ASSERT_TRUE(manifest) << manifest.error().message;
  const ForecastInput& input = manifest->plan.inputs[3];
  EXPECT_EQ(input, (ForecastInput{PromptReader::kAuxiliary, 2, InputKind::kResidual, {0}}));
  const ModelConfig base = *read_model_config(manifest->base);
  const ModelConfig auxiliary = *read_model_config(manifest->auxiliary);
  EXPECT_EQ(input_width(input, base, auxiliary), 2 * auxiliary.model_dim);
  Json written = json;
  for (const char* key : {"sink_tokens", "exact_layers", "inputs"}) written.erase(key);
  write_plan(manifest->plan, written);
  EXPECT_EQ(written, json);
  const std::pair<Json, const char*> wrong[] = {
      {{{"from", "auxiliary"}, {"layers", {2, 0}}, {"kind", "residual"}}, "ascending"},
      {{{"from", "auxiliary"}, {"layers", {0, 0}}, {"kind", "residual"}}, "ascending"},
      {{{"from", "auxiliary"}, {"layers", {0, 2}}, {"kind", "joint"}}, "residual"},
      {{{"from", "auxiliary"}, {"layers", {0, 99}}, {"kind", "residual"}}, "layer 99"},
      {{{"from", "auxiliary"}, {"layers", Json::array()}, {"kind", "residual"}}, "one layer"},
      {{{"from", "auxiliary"}, {"layers", {0, 2}}, {"layer", 2}, {"kind", "residual"}}, "layers"}};
  for (const auto& [entry, named] : wrong) {
    json["inputs"][1] = entry;
    const auto result = read(json);
    ASSERT_FALSE(result) << entry;
    EXPECT_THAT(result.error().message, AllOf(HasSubstr("kvcast.json"), HasSubstr(named)));
  }
}

TEST_F(BundleTest, TheSecondFormatNeedsNoAuxiliaryWhereNothingReadsIt) {
  Json manifest = second_format();
  manifest.erase("auxiliary");
  EXPECT_FALSE(read(manifest));  // the inputs read it
  for (Json& input : manifest["inputs"]) input = manifest["inputs"][0];
  const auto alone = read(manifest);
  ASSERT_TRUE(alone) << alone.error().message;
  EXPECT_TRUE(alone->auxiliary.empty());
}

TEST_F(BundleTest, WrongPlansAreNamedWithTheExpectation) {
  const Json input = second_format()["inputs"][0];
  const auto with = [&](const char* key, const Json& value) {
    Json changed = input;
    changed[key] = value;
    return Json::array({changed, input, input});
  };
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"sink_tokens", -1},
      {"sink_tokens", INT64_MAX},
      {"exact_layers", 6},
      {"exact_layers", "2"},
      {"inputs", nullptr},
      {"inputs", Json::array({input, input})},
      {"inputs", Json::array({input, input, 1})},
      {"inputs", with("from", "elsewhere")},
      {"inputs", with("kind", "attention")},
      {"inputs", with("kind", nullptr)},
      {"inputs", with("layer", 2)},
      {"inputs", with("layer", -1)},
      {"inputs", with("layer", UINT64_MAX)},
  };
  for (const auto& [key, value] : wrong) {
    Json manifest = second_format();
    manifest[key] = value;
    const auto result = read(manifest);
    ASSERT_FALSE(result) << key << " = " << value;
    EXPECT_THAT(result.error().message,
                AllOf(HasSubstr("kvcast.json"), HasSubstr("expected"), Not(HasSubstr("\n"))));
  }
}

TEST_F(BundleTest, EveryWrongValueIsNamedWithTheExpectation) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"format", 3},
      {"format", "1"},
      {"base", 1},
      {"base", ""},
      {"base", "/etc"},
      {"auxiliary", nullptr},
      {"auxiliary", std::string("auxiliary\0", 10)},
      {"predictor", "../predictor.safetensors"},
      {"predictor", "sub/../../predictor.safetensors"},
      {"predictor", "/predictor.safetensors"},
      {"layer_map", "identity"},
      {"layer_map", Json::array({0, 0, 1, 1})},
      {"layer_map", Json::array({0, 0, 1, 1, 2, 2})},
      {"layer_map", Json::array({0, 0, 1, 1, 3})},
      {"layer_map", Json::array({-1, 0, 1, 1, 2})},
      {"layer_map", Json::array({0, 0.5, 1, 1, 2})},
      {"default_prefill", 16},
  };
  for (const auto& [key, value] : wrong) {
    EXPECT_THAT(error_with(key, value),
                AllOf(HasSubstr("kvcast.json"), HasSubstr("\"" + key + "\""), HasSubstr("expected"),
                      HasSubstr("found"), Not(HasSubstr("\n"))))
        << key << " = " << value;
  }
}

TEST_F(BundleTest, ErrorsOfTheModelsNameTheirFiles) {
  EXPECT_THAT(error_with("base", "nowhere"), HasSubstr("nowhere/config.json"));
  bundle_.write("kvp/auxiliary/config.json", "{}");
  EXPECT_THAT(error_with("format", 1),
              AllOf(HasSubstr("auxiliary/config.json"), HasSubstr("model_type")));
}

TEST_F(BundleTest, VocabulariesMustAgree) {
  Json auxiliary = *read_json_object(kGolden / "auxiliary" / "config.json");
  auxiliary["vocab_size"] = 95;
  bundle_.write("kvp/auxiliary/config.json", auxiliary.dump());
  EXPECT_THAT(error_with("format", 1),
              AllOf(HasSubstr("kvcast.json"), HasSubstr("vocab_size 96"), HasSubstr("has 95")));
}

TEST_F(BundleTest, LayerMapCheckNamesLengthAndEntry) {
  const auto base = *read_model_config(kGolden / "base");
  const auto auxiliary = *read_model_config(kGolden / "auxiliary");
  EXPECT_TRUE(check_layer_map({0, 0, 1, 1, 2}, base, auxiliary, "here"));
  EXPECT_THAT(check_layer_map({0, 0}, base, auxiliary, "here").error().message,
              AllOf(HasSubstr("here"), HasSubstr("5 entries"), HasSubstr("found 2")));
  EXPECT_THAT(check_layer_map({0, 0, 1, 1, 3}, base, auxiliary, "here").error().message,
              AllOf(HasSubstr("entry 4"), HasSubstr("0 to 2"), HasSubstr("found 3")));
}

TEST_F(BundleTest, AModelThatIsShippedApartIsFoundByName) {
  for (const std::string key : {"base", "auxiliary"}) {
    std::filesystem::remove(bundle_.path() / "hub/tiny");
    Json manifest = manifest_;
    manifest[key] = {{"file", "tiny"}, {"bytes", 12}, {"sha256", "0a"}};
    const auto missing = read(manifest);
    ASSERT_FALSE(missing);
    EXPECT_THAT(missing.error().message, AllOf(HasSubstr("its " + key + " tiny is not fetched yet"),
                                               HasSubstr("make models MODELS=tiny"),
                                               HasSubstr("hub"), Not(HasSubstr("\n"))));
    bundle_.write("hub/tiny", "twelve bytes");
    const auto found = read(manifest);  // it is no model, which is another complaint
    ASSERT_FALSE(found);
    EXPECT_THAT(found.error().message, AllOf(HasSubstr("hub/tiny"), Not(HasSubstr("not fetched"))));
    bundle_.write("hub/tiny", "more than twelve bytes");
    EXPECT_THAT(read(manifest).error().message, HasSubstr("(22 bytes, not 12)"));
    manifest[key]["file"] = "../tiny";
    EXPECT_THAT(read(manifest).error().message,
                AllOf(HasSubstr("key \"file\""), HasSubstr("a file's name")));
  }
}

TEST_F(BundleTest, SharedLayersAreThoseOfTheBase) {
  // The base's own layers, of which one is its own.
  std::filesystem::copy_file(bundle_.path() / "kvp/base/config.json",
                             bundle_.path() / "kvp/auxiliary/config.json",
                             std::filesystem::copy_options::overwrite_existing);
  manifest_["shared_layers"] = {0, 1, -1, 3, 4};
  const auto manifest = read(manifest_);
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_THAT(manifest->shared_layers, ElementsAre(0, 1, -1, 3, 4));
  EXPECT_THAT(error_with("shared_layers", {0, 1, -1, 3}), HasSubstr("shared_layers"));
  EXPECT_THAT(error_with("shared_layers", {0, 1, -1, 3, 5}), HasSubstr("shared_layers"));
  EXPECT_THAT(error_with("shared_layers", {4, 1, -1, 3, 4}),
              HasSubstr("a layer of the auxiliary's shape"));
  // Its own one differs from the base's third by low rank.
  manifest_["adapted_layers"] = {-1, -1, 2, -1, -1};
  const auto adapted = read(manifest_);
  ASSERT_TRUE(adapted) << adapted.error().message;
  EXPECT_THAT(adapted->adapted_layers, ElementsAre(-1, -1, 2, -1, -1));
  EXPECT_THAT(error_with("adapted_layers", {-1, 1, 2, -1, -1}), HasSubstr("entry 1: -1"));
  EXPECT_THAT(error_with("adapted_layers", {-1, -1, 5, -1, -1}), HasSubstr("adapted_layers"));
}

}  // namespace
}  // namespace kvcast

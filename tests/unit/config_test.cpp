#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/mapped_file.h"
#include "io/json.h"
#include "model/architectures.h"
#include "model/json_fields.h"
#include "support/temporary_directory.h"

namespace kvcast {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const std::filesystem::path kGoldenBundle =
    std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

Json golden_json() { return *read_json_object(kGoldenBundle / "base" / "config.json"); }

// The error that reading `json` as config.json gives; empty if there is none.
std::string error_for(const Json& json) {
  TemporaryDirectory directory;
  directory.write("config.json", json.dump());
  const auto config = read_model_config(directory.path());
  return config ? "" : config.error().message;
}

std::string error_with(const std::string& key, const Json& value) {
  Json json = golden_json();
  json[key] = value;
  return error_for(json);
}

TEST(ModelConfig, ReadsTheGoldenBase) {
  const auto config = read_model_config(kGoldenBundle / "base");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->vocab_size, 96);
  EXPECT_EQ(config->model_dim, 64);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->max_context_tokens, 64);
  EXPECT_TRUE(config->normalize_qk);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_EQ(config->rope.theta, 10000.0F);
  ASSERT_EQ(config->n_layers(), 5);
  EXPECT_EQ(config->layers[0].query_heads, 2);
  EXPECT_EQ(config->kv_width(0), 16);
  EXPECT_EQ(config->query_width(4), 64);
  // make_divisible(multiplier * 64, 16): 32, 88.32, 144, 199.68, 256
  EXPECT_EQ(config->layers[0].ffn_dim, 32);
  EXPECT_EQ(config->layers[1].ffn_dim, 96);
  EXPECT_EQ(config->layers[2].ffn_dim, 144);
  EXPECT_EQ(config->layers[3].ffn_dim, 192);
  EXPECT_EQ(config->layers[4].ffn_dim, 256);
}

TEST(ModelConfig, EveryMissingKeyIsNamed) {
  for (const char* key :
       {"model_type", "activation_fn_name", "normalization_layer_name", "ffn_with_glu",
        "vocab_size", "model_dim", "head_dim", "max_context_length", "num_transformer_layers",
        "num_query_heads", "num_kv_heads", "ffn_multipliers", "ffn_dim_divisor",
        "normalize_qk_projections", "share_input_output_layers", "rope_freq_constant"}) {
    Json json = golden_json();
    json.erase(key);
    EXPECT_THAT(error_for(json), AllOf(HasSubstr("config.json"), HasSubstr(key),
                                       HasSubstr("is missing"), Not(HasSubstr("\n"))));
  }
}

TEST(ModelConfig, KeysThatNothingNeedsMayBeMissing) {
  Json json = golden_json();
  for (const char* key : {"qkv_multipliers", "num_gqa_groups", "rope_max_length", "bos_token_id",
                          "eos_token_id", "torch_dtype", "architectures"}) {
    json.erase(key);
  }
  EXPECT_EQ(error_for(json), "");
}

TEST(ModelConfig, AnAnswerEndsAtNoneOneOrSeveralTokens) {
  const auto end_tokens = [](const Json& value) {
    TemporaryDirectory directory;
    Json json = golden_json();
    json["eos_token_id"] = value;
    directory.write("config.json", json.dump());
    const auto config = read_model_config(directory.path());
    EXPECT_TRUE(config);
    return config ? config->eos_tokens : std::vector<int64_t>{-1};
  };
  EXPECT_THAT(end_tokens(nullptr), ElementsAre());
  EXPECT_THAT(end_tokens(5), ElementsAre(5));
  EXPECT_THAT(end_tokens(Json::array({2, 5})), ElementsAre(2, 5));
}

TEST(ModelConfig, EveryWrongValueIsNamedWithTheExpectation) {
  const std::vector<std::pair<std::string, Json>> wrong = {
      {"model_type", "mamba"},
      {"model_type", 7},
      {"activation_fn_name", "gelu"},
      {"normalization_layer_name", "layer_norm"},
      {"ffn_with_glu", false},
      {"vocab_size", 0},
      {"vocab_size", -1},
      {"vocab_size", 96.0},
      {"vocab_size", 18446744073709551615ULL},
      {"vocab_size", "96"},
      {"model_dim", int64_t{1} << 62},
      {"head_dim", 15},
      {"head_dim", 1 << 20},
      {"max_context_length", int64_t{1} << 40},
      {"rope_max_length", 63},
      {"num_transformer_layers", 4},
      {"num_transformer_layers", 1 << 30},
      {"num_query_heads", Json::array({2, 4, 4, 4})},
      {"num_query_heads", Json::array({2, 4, 4, 4, 1 << 30})},
      {"num_query_heads", Json::array({2, 4, 4, 4, nullptr})},
      {"num_query_heads", 4},
      {"num_kv_heads", Json::array({1, 2, 2, 2, 0})},
      {"num_kv_heads", Json::array({1, 2, 2, 2, 3})},
      {"ffn_multipliers", Json::array({0.5, 1, 1, 1, -4})},
      {"ffn_multipliers", Json::array({0.5, 1, 1, 1, 1e5})},
      {"ffn_multipliers", Json::array({0.5, 1, 1, 1, "4"})},
      {"ffn_dim_divisor", 0},
      {"normalize_qk_projections", 1},
      {"share_input_output_layers", "true"},
      {"rope_freq_constant", 0},
      {"rope_freq_constant", nullptr},
      {"bos_token_id", 96},
      {"eos_token_id", -1},
  };
  for (const auto& [key, value] : wrong) {
    EXPECT_THAT(error_with(key, value),
                AllOf(HasSubstr("config.json"),
                      HasSubstr(key == "num_transformer_layers" && value == 4 ? "entries" : key),
                      HasSubstr("expected"), HasSubstr("found"), Not(HasSubstr("\n"))))
        << key << " = " << value;
  }
}

TEST(ModelConfig, ErrorsStayOneShortLineWhateverTheFileHolds) {
  const std::string error = error_with("model_type", "a\nb" + std::string(5000, 'x'));
  EXPECT_THAT(error, AllOf(HasSubstr("\"openelm\""), Not(HasSubstr("\n"))));
  EXPECT_LT(error.size(), 400U);
}

TEST(ModelConfig, FilesThatAreNoConfigAreNamed) {
  TemporaryDirectory directory;
  EXPECT_THAT(read_model_config(directory.path()).error().message, HasSubstr("config.json"));
  for (const char* text : {"", "[]", "{\"model_type\": ", "{}x"}) {
    directory.write("config.json", text);
    const auto config = read_model_config(directory.path());
    ASSERT_FALSE(config) << text;
    EXPECT_THAT(config.error().message, HasSubstr("config.json"));
  }
}

TEST(ModelConfig, WrittenConfigReadsBackTheSame) {
  std::vector<ModelConfig> configs = {*read_model_config(kGoldenBundle / "base"),
                                      *read_model_config(kGoldenBundle / "auxiliary")};
  for (const char* family : {"openelm-270m", "openelm-450m", "openelm-1.1b", "openelm-3b"}) {
    for (const char* form : {"", "-lp-0.75", "-lp-0.50", "-lp-0.25"}) {
      configs.push_back(*named_architecture(std::string(family) + form));
    }
  }
  configs.push_back(make_openelm_config({.n_layers = 1,
                                         .model_dim = 48,
                                         .head_dim = 8,
                                         .gqa_groups = 2,
                                         .ffn_dim_divisor = 7,
                                         .vocab_size = 11}));
  configs.back().tied_embeddings = false;
  configs.back().normalize_qk = false;
  configs.back().rope.theta = 500000.0F;
  for (const ModelConfig& config : configs) {
    TemporaryDirectory directory;
    directory.write("config.json", to_config_json(config));
    const auto read = read_model_config(directory.path());
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, config);
  }
}

TEST(ModelConfig, WrittenConfigHasThePublishedMultipliers) {
  const auto json = parse_json(to_config_json(*named_architecture("openelm-270m")), "270m");
  ASSERT_TRUE(json);
  EXPECT_EQ((*json)["qkv_multipliers"], Json::array({0.5, 1.0}));
  EXPECT_EQ((*json)["num_gqa_groups"], 4);
  EXPECT_EQ((*json)["ffn_dim_divisor"], 256);
  // apple/OpenELM-270M
  EXPECT_EQ((*json)["ffn_multipliers"], Json::array({0.5, 0.73, 0.97, 1.2, 1.43, 1.67, 1.9, 2.13,
                                                     2.37, 2.6, 2.83, 3.07, 3.3, 3.53, 3.77, 4.0}));
  EXPECT_EQ((*json)["num_query_heads"],
            Json::array({12, 12, 12, 12, 12, 16, 16, 16, 16, 16, 16, 16, 20, 20, 20, 20}));
}

TEST(ModelConfig, PrunedConfigIsNotWrittenAsIfItWereScaled) {
  // Hugging Face's code would build other widths from the two end points.
  const auto json = parse_json(to_config_json(*named_architecture("openelm-270m-lp-0.25")), "lp");
  ASSERT_TRUE(json);
  EXPECT_EQ((*json)["qkv_multipliers"].size(), 4U);
}

TEST(JsonFields, NumbersBeyondInt64DoNotWrapAround) {
  const Json json = {{"a", 18446744073709551615ULL}, {"b", -1}};
  const JsonFields fields(json, "here");
  EXPECT_FALSE(fields.integer("a", -10, 10));
  EXPECT_EQ(fields.integer("b", -10, 10).value_or(0), -1);
}

TEST(Architectures, OpenElmParameterCountsAreExact) {
  EXPECT_EQ(named_architecture("openelm-270m")->parameter_count(), 271'527'168);
  EXPECT_EQ(named_architecture("openelm-450m")->parameter_count(), 457'179'136);
  EXPECT_EQ(named_architecture("openelm-1.1b")->parameter_count(), 1'079'891'456);
  EXPECT_EQ(named_architecture("openelm-3b")->parameter_count(), 3'036'647'424);
}

TEST(Architectures, MultipliersRoundTiesToEvenAsNumpyDoes) {
  // The golden base was made by the authors' own scaling; its 3.125 is written as 3.12.
  EXPECT_EQ(make_openelm_config({.n_layers = 5,
                                 .model_dim = 64,
                                 .head_dim = 16,
                                 .gqa_groups = 2,
                                 .ffn_dim_divisor = 16,
                                 .vocab_size = 96,
                                 .max_context_tokens = 64}),
            *read_model_config(kGoldenBundle / "base"));
}

TEST(Architectures, LayerPrunedKeepsEachLayersOwnWidth) {
  const auto base = *named_architecture("openelm-1.1b");
  const auto pruned = *named_architecture("openelm-1.1b-lp-0.75");
  ASSERT_EQ(pruned.n_layers(), 21);
  EXPECT_EQ(pruned.layers[3].ffn_dim, base.layers[4].ffn_dim);
  EXPECT_EQ(pruned.layers[20].query_heads, base.layers[26].query_heads);
  EXPECT_EQ(named_architecture("openelm-3b-lp-0.5")->n_layers(), 18);
  EXPECT_EQ(named_architecture("openelm-3b-lp-0.25")->n_layers(), 9);
}

TEST(Architectures, UnknownNamesListTheKnownOnes) {
  EXPECT_THAT(named_architecture("gpt-5").error().message,
              AllOf(HasSubstr("gpt-5"), HasSubstr("openelm-1.1b"), HasSubstr("-lp-0.50")));
  EXPECT_THAT(named_architecture("openelm-3b-lp-0.33").error().message,
              AllOf(HasSubstr("0.33"), HasSubstr("0.75")));
  EXPECT_FALSE(named_architecture(""));
  EXPECT_FALSE(named_architecture("openelm-3b-lp-"));
}

// Method §5: `doubled` leading layers that serve two base layers each, then one each up to `last`.
std::vector<int64_t> doubled_then_single(int64_t doubled, int64_t last) {
  std::vector<int64_t> map;
  for (int64_t j = 0; j <= last; ++j) map.insert(map.end(), j < doubled ? 2 : 1, j);
  return map;
}

TEST(LayerMaps, CanonicalMapsAreThoseOfThePaper) {
  EXPECT_EQ(canonical_layer_map(28, 20),
            (std::vector<int64_t>{0, 0, 1, 1, 2,  2,  3,  3,  4,  4,  5,  5,  6,  6,
                                  7, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}));
  EXPECT_EQ(canonical_layer_map(28, 16),
            (std::vector<int64_t>{0, 0, 1, 1, 2, 2, 3,  3,  4,  4,  5,  5,  6,  6,
                                  7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 13, 14, 15}));
  EXPECT_EQ(canonical_layer_map(36, 28), doubled_then_single(8, 27));
  EXPECT_EQ(canonical_layer_map(36, 20), doubled_then_single(16, 19));
  std::vector<int64_t> third = {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3};
  for (int64_t j = 4; j < 16; ++j) third.insert(third.end(), 2, j);
  EXPECT_EQ(canonical_layer_map(36, 16), third);
  EXPECT_THAT(canonical_layer_map(5, 3), ElementsAre(0, 0, 1, 1, 2));  // the golden bundle's
}

TEST(LayerMaps, EqualDepthsMapOneToOne) {
  std::vector<int64_t> identity(28);
  std::iota(identity.begin(), identity.end(), 0);
  EXPECT_EQ(canonical_layer_map(28, 28), identity);
}

TEST(LayerMaps, LayerPrunedReadsTheKeptLayerAtOrBelow) {
  const auto map = [](const char* fraction) {
    return layer_pruned_layer_map(12, *layer_pruned_kept_layers(12, fraction));
  };
  EXPECT_THAT(map("0.75"), ElementsAre(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8));
  EXPECT_THAT(map("0.50"), ElementsAre(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5));
  EXPECT_THAT(map("0.25"), ElementsAre(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2));
}

}  // namespace
}  // namespace kvcast

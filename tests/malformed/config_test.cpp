// config.json gone wrong, as it meets somebody who loads a model. What each key accepts is tested
// in detail in unit/config_test.cpp.
#include "malformed/malformed.h"

namespace kvcast {
namespace {

using Config = MalformedTest;

constexpr std::string_view kConfigFile = "config.json";

/// Every key that a config must have.
const std::vector<std::string> kRequired = {
    "model_type",
    "activation_fn_name",
    "normalization_layer_name",
    "ffn_with_glu",
    "vocab_size",
    "model_dim",
    "head_dim",
    "max_context_length",
    "num_transformer_layers",
    "num_query_heads",
    "num_kv_heads",
    "ffn_multipliers",
    "ffn_dim_divisor",
    "normalize_qk_projections",
    "share_input_output_layers",
    "rope_freq_constant",
};

TEST_F(Config, EachMissingKeyIsNamed) {
  const Json whole = model_.config;
  for (const std::string& key : kRequired) {
    model_.config = whole;
    model_.config.erase(key);
    expect_model_error({kConfigFile, "\"" + key + "\"", "missing", "expected"});
  }
}

TEST_F(Config, EachKeyOfTheWrongTypeIsNamed) {
  const Json whole = model_.config;
  const Json object = Json::object();
  for (const std::string& key : kRequired) {
    for (const Json& wrong : {Json(nullptr), object, Json("x"), Json::array({Json::array()}),
                              Json(0.5e-300), Json(-7)}) {
      model_.config = whole;
      model_.config[key] = wrong;
      expect_model_error({kConfigFile, "\"" + key + "\"", "expected"});
    }
  }
}

TEST_F(Config, HostileSizesAreRefusedBeforeAnythingIsMadeOfThatSize) {
  const Json whole = model_.config;
  for (const char* key : {"vocab_size", "model_dim", "head_dim", "max_context_length",
                          "num_transformer_layers", "ffn_dim_divisor"}) {
    for (const Json& size : {Json(0), Json(-1), Json(INT64_MIN), Json(INT64_MAX), Json(UINT64_MAX),
                             Json(1e300), Json(16.0), Json(int64_t{1} << 40)}) {
      model_.config = whole;
      model_.config[key] = size;
      expect_model_error({kConfigFile, std::string("\"") + key + "\"", "expected", "found"});
    }
  }
}

TEST_F(Config, SizesThatAreAllowedButNotThoseOfTheWeightsAreRefused) {
  const Json whole = model_.config;
  for (const auto& [key, size] :
       {std::pair{"vocab_size", 1 << 24}, {"model_dim", 1 << 17}, {"head_dim", 512}}) {
    model_.config = whole;
    model_.config[key] = size;
    expect_model_error({"model.safetensors", "tensor transformer.", "expected ["});
  }
}

TEST_F(Config, HeadsThatDoNotDivideAreRefused) {
  model_.config["num_kv_heads"] = {1, 3};
  expect_model_error({kConfigFile, "\"num_kv_heads\"", "entry 1 (3)", "divide"});
}

TEST_F(Config, ListsOfTheWrongLengthAreRefused) {
  const Json whole = model_.config;
  for (const char* key : {"num_query_heads", "num_kv_heads", "ffn_multipliers"}) {
    for (const size_t length : {0, 1, 3}) {
      model_.config = whole;
      model_.config[key] = std::vector<int>(length, 1);
      expect_model_error({kConfigFile, std::string("\"") + key + "\"", "a list of 2 entries"});
    }
  }
  model_.config = whole;
  model_.config["num_transformer_layers"] = 1024;
  expect_model_error({kConfigFile, "\"num_query_heads\"", "a list of 1024 entries"});
}

TEST_F(Config, AnotherArchitectureIsRefused) {
  for (const char* type : {"gpt_neox", "openelm\n", "OpenELM", ""}) {
    model_.config["model_type"] = type;
    expect_model_error({kConfigFile, "\"model_type\"", "expected one of \"openelm\", \"llama\""});
  }
}

TEST_F(Config, MoreLayersThanTheWeightsHaveIsAMissingTensor) {
  model_.config["num_transformer_layers"] = 3;
  for (const char* key : {"num_query_heads", "num_kv_heads"}) model_.config[key].push_back(2);
  model_.config["ffn_multipliers"].push_back(1.0);
  expect_model_error({"model.safetensors", "tensor transformer.layers.2.", "missing"});
}

TEST_F(Config, TextThatIsNoJsonObjectIsRefused) {
  model_.write(root_);
  for (const std::string_view text : {"", "{", "[]", "null", "{\"model_type\":\"openelm\"", "\xff",
                                      "{\"a\":1}{", "{\"a\":1,\"a\":2}", "{\"a\":1e999}"}) {
    root_.write(kConfigFile, text);
    expect_load_error(root_.path(), {kConfigFile});
  }
  root_.write(kConfigFile, std::string(1'000'000, '['));
  expect_load_error(root_.path(), {kConfigFile, "nested"});
}

TEST_F(Config, LongOrMultiLineValuesDoNotFloodTheError) {
  model_.config["model_type"] = "a\nb" + std::string(100'000, 'x');
  expect_model_error({kConfigFile, "model_type", "expected one of \"openelm\""});
  root_.write(kConfigFile, "{\"" + std::string(100'000, 'k') + "\":1e999}");
  expect_load_error(root_.path(), {kConfigFile, "JSON"});
}

}  // namespace
}  // namespace kvcast

// KV-prediction bundles whose parts do not fit each other.
#include "malformed/malformed.h"

namespace kvcast {
namespace {

using Bundle = MalformedTest;

constexpr std::string_view kManifest = "kvcast.json";
constexpr std::string_view kPredictor = "predictor.safetensors";

TEST_F(Bundle, EachMissingKeyOfTheManifestIsNamed) {
  const Json whole = bundle_.manifest;
  for (const char* key : {"format", "base", "auxiliary", "predictor", "layer_map"}) {
    bundle_.manifest = whole;
    bundle_.manifest.erase(key);
    expect_bundle_error({kManifest, std::string("\"") + key + "\"", "missing", "expected"});
  }
}

TEST_F(Bundle, EachKeyOfTheWrongTypeIsNamed) {
  const Json whole = bundle_.manifest;
  const Json object = Json::object();
  for (const char* key : {"format", "base", "auxiliary", "predictor", "layer_map"}) {
    for (const Json& wrong : {Json(nullptr), object, Json(true), Json(1.5), Json("")}) {
      bundle_.manifest = whole;
      bundle_.manifest[key] = wrong;
      expect_bundle_error({kManifest, std::string("\"") + key + "\"", "expected"});
    }
  }
}

TEST_F(Bundle, AnUnknownFormatIsRefused) {
  for (const Json& format : {Json(0), Json(3), Json(-1), Json("1"), Json(UINT64_MAX)}) {
    bundle_.manifest["format"] = format;
    expect_bundle_error({kManifest, "\"format\"", "expected a whole number from 1 to 2"});
  }
}

TEST_F(Bundle, AManifestThatIsNoJsonObjectIsRefused) {
  bundle_.write(root_);
  for (const std::string_view text : {"", "[]", "{", "\"format\""}) {
    root_.write(kManifest, text);
    expect_load_error(root_.path(), {kManifest, "JSON"});
  }
}

TEST_F(Bundle, ALayerMapThatDoesNotFitIsRefused) {
  for (const Json& map :
       {Json::array(), Json::array({0}), Json::array({0, 1, 1}), Json::array({0, 2}),
        Json::array({-1, 0}), Json::array({0, INT64_MAX}), Json::array({0, UINT64_MAX}),
        Json::array({0, "1"}), Json::array({0, 1.0}), Json::array({0, nullptr})}) {
    bundle_.manifest["layer_map"] = map;
    expect_bundle_error({kManifest, "\"layer_map\"", "expected"});
  }
}

TEST_F(Bundle, AModelThatIsNotThereIsNamed) {
  const Json whole = bundle_.manifest;
  for (const char* part : {"base", "auxiliary"}) {
    bundle_.manifest = whole;
    bundle_.manifest[part] = "nowhere";
    expect_bundle_error({"nowhere/config.json", "cannot open"});
  }
}

TEST_F(Bundle, APredictorThatIsNotThereIsNamed) {
  bundle_.manifest["predictor"] = "other.safetensors";
  expect_bundle_error({"other.safetensors", "cannot open"});
}

TEST_F(Bundle, APredictorOutsideTheBundleIsRefused) {
  for (const char* path : {"../predictor.safetensors", "base/../../x", "/predictor.safetensors"}) {
    bundle_.manifest["predictor"] = path;
    expect_bundle_error({kManifest, "\"predictor\"", "expected a path"});
  }
}

TEST_F(Bundle, EachMissingPredictorTensorIsNamed) {
  const StoredTensors whole = bundle_.predictor;
  for (const auto& [name, tensor] : whole) {
    bundle_.predictor = whole;
    bundle_.predictor.erase(name);
    expect_bundle_error({kPredictor, "tensor " + name, "missing"});
  }
}

TEST_F(Bundle, EachPredictorTensorOfTheWrongShapeIsNamed) {
  const StoredTensors whole = bundle_.predictor;
  for (const auto& [name, tensor] : whole) {
    std::vector<std::vector<int64_t>> wrong_shapes = {{}, {0}, tensor.shape, tensor.shape};
    wrong_shapes[2].push_back(1);
    wrong_shapes[3].back() += 1;
    if (tensor.shape.size() == 2 && tensor.shape[0] != tensor.shape[1]) {
      wrong_shapes.push_back({tensor.shape[1], tensor.shape[0]});
    }
    for (const auto& wrong : wrong_shapes) {
      bundle_.predictor = whole;
      bundle_.predictor[name] = some_numbers(wrong, 1);
      expect_bundle_error({kPredictor, "tensor " + name, "shape", "expected ["});
    }
  }
}

TEST_F(Bundle, APredictorOfWholeNumbersIsRefused) {
  bundle_.predictor["value_transforms.1.bias"].dtype = "I32";
  expect_bundle_error({kPredictor, "value_transforms.1.bias", "I32", "expected F32, F16 or BF16"});
}

TEST_F(Bundle, ADamagedAuxiliaryIsNamed) {
  bundle_.auxiliary.tensors.erase("transformer.norm.weight");
  expect_bundle_error({"auxiliary/model.safetensors", "transformer.norm.weight", "missing"});
}

TEST_F(Bundle, AnAuxiliaryOfAnotherVocabularyIsRefused) {
  ModelConfig shape = tiny_auxiliary_shape();
  shape.vocab_size = 399;
  bundle_.auxiliary = ModelFiles::of(shape, 0);
  expect_bundle_error({kManifest, "vocab_size 400", "auxiliary", "399"});
}

TEST_F(Bundle, ADefaultStrategyThatIsUnknownIsRefused) {
  for (const char* spec : {"guess", "kv-prediction:tail=0", "\n"}) {
    bundle_.manifest["default_prefill"] = spec;
    expect_bundle_error({kManifest, "default_prefill", "prefill strategy"});
  }
  bundle_.manifest["default_prefill"] = 7;
  expect_bundle_error({kManifest, "default_prefill", "expected a string"});
}

}  // namespace
}  // namespace kvcast

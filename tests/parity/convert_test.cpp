// What `kvcast convert` writes must answer as what it was made from.
#include "runtime/convert.h"

#include <gtest/gtest.h>

#include "io/json.h"
#include "model/bundle.h"
#include "model/checkpoint.h"
#include "model/weight_reader.h"
#include "model/weights.h"
#include "prefill/strategy.h"
#include "support/bundle_files.h"
#include "support/tensors.h"
#include "support/weight_types.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;
const fs::path kGolden = fs::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

std::vector<float> logits(const fs::path& directory, std::optional<WeightType> type,
                          const char* spec) {
  const auto models = load_models(directory, type, 2);
  EXPECT_TRUE(models) << models.error().message;
  if (!models) return {};
  Sequence sequence(*models);
  sequence.tokens = {1, 5, 17, 3, 44, 9, 2, 60, 31};
  Sequence* const batch[] = {&sequence};
  std::vector<float> out(static_cast<size_t>(models->base->config().vocab_size));
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(*models, batch, out.data(), workspace, {});
  return out;
}

void expect_converted(const ConvertOptions& options) {
  const Status status = convert(options);
  ASSERT_TRUE(status) << status.error().message;
}

/// Of the largest element of a matrix, at most, when it is held as `type`.
double rounding_of(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return 0.0;
    case WeightType::kBf16:
      return 1.0 / 256;
    case WeightType::kInt4Blocks:
      return 2.0 * 2.0 / 15;
    default:
      return 1.0 / 127;
  }
}

class Convert : public testing::TestWithParam<WeightType> {
 protected:
  TemporaryDirectory root_;
  const fs::path out_ = root_.path() / "out";
};

TEST_P(Convert, APackedBundleAnswersAsThePlainOneToTheBit) {
  expect_converted({.source = kGolden, .output = out_, .type = GetParam(), .threads = 2});
  for (const char* spec : {"exact", "kv-prediction", "auxiliary"}) {
    EXPECT_EQ(logits(out_, std::nullopt, spec), logits(kGolden, GetParam(), spec)) << spec;
  }
}

TEST_P(Convert, AnyTypeIsWrittenAgainFromAPackedBundle) {
  const fs::path again = root_.path() / "again";
  expect_converted({.source = kGolden, .output = out_, .type = GetParam()});
  expect_converted({.source = out_, .output = again});
  EXPECT_EQ(logits(again, std::nullopt, "kv-prediction"),
            logits(out_, std::nullopt, "kv-prediction"));
}

TEST_P(Convert, PackedWeightsLoadInEveryType) {
  expect_converted({.source = kGolden, .output = out_, .type = GetParam()});
  const auto f32 = logits(out_, WeightType::kF32, "exact");
  // f32 holds what the other types hold; rounding it again gives the same, but for an int8 scale's
  // last bit.
  const fs::path unpacked = root_.path() / "f32";
  expect_converted({.source = out_, .output = unpacked, .type = WeightType::kF32});
  EXPECT_LT(
      relative_to_largest(logits(unpacked, GetParam(), "exact"), logits(out_, GetParam(), "exact")),
      1e-5);
  const double error = GetParam() == WeightType::kInt4Blocks ? 0.75 : 0.1;
  EXPECT_LT(relative_to_largest(f32, logits(kGolden, WeightType::kF32, "exact")), error);
}

TEST_P(Convert, TheMainTypeIsKnownFromTheHeaders) {
  expect_converted({.source = kGolden, .output = out_, .type = GetParam()});
  const Checkpoint packed = *open_checkpoint(out_ / "base");
  const auto type = main_type(packed);
  ASSERT_TRUE(type) << type.error().message;
  EXPECT_EQ(*type, GetParam());
  EXPECT_EQ(load_weights(packed, std::nullopt, 2)->main_type(), GetParam());
}

TEST_P(Convert, UnpackedWeightsAreThoseOfTheCheckpoint) {
  expect_converted({.source = kGolden, .output = out_, .type = GetParam()});
  const Checkpoint plain = *open_checkpoint(kGolden / "base");
  const Checkpoint packed = *open_checkpoint(out_ / "base");
  const auto reader = WeightReader::open(packed.weights, std::nullopt, 2);
  ASSERT_TRUE(reader) << reader.error().message;
  const double rounding = rounding_of(GetParam());
  const auto layout = tensor_layout(plain.config, plain.form, packed.form);
  ASSERT_EQ(layout.size(), plain.weights->tensors().size());
  for (const LayoutEntry& entry : layout) {
    const auto values = reader->floats(entry);
    ASSERT_TRUE(values) << values.error().message;
    const auto stored = float_values(*plain.weights, entry.name);
    EXPECT_LE(relative_to_largest(*values, stored), rounding) << entry.name;
  }
}

TEST_P(Convert, AnUnpackedPredictorIsThatOfTheFile) {
  expect_converted({.source = kGolden, .output = out_, .type = GetParam()});
  const BundleManifest manifest = *read_bundle_manifest(out_);
  const auto plain = *Safetensors::open(kGolden / "predictor.safetensors");
  const auto predictor = Predictor::load(manifest.predictor, *read_model_config(manifest.base),
                                         *read_model_config(manifest.auxiliary),
                                         manifest.plan.layer_map(), GetParam(), 2);
  ASSERT_TRUE(predictor) << predictor.error().message;
  const auto unpacked = (*predictor)->unpacked(2);
  ASSERT_EQ(unpacked.size(), plain->tensors().size());
  for (const auto& [name, tensor] : unpacked) {
    EXPECT_EQ(tensor.shape, plain->find(name)->shape) << name;
    EXPECT_LE(relative_to_largest(tensor.values, float_values(*plain, name)),
              rounding_of(GetParam()))
        << name;
  }
}

KVCAST_FOR_EVERY_WEIGHT_TYPE(Convert);

TEST(ConvertBundle, ASharedBaseComesToLieInTheBundleAndOtherKeysStay) {
  const TemporaryDirectory root;
  BundleFiles bundle;
  bundle.base.write(root, "shared/base");
  root.write("shared/base/tokenizer.model", "pieces");
  bundle.auxiliary.write(root, "one/auxiliary");
  root.write("one/maps.safetensors", safetensors_bytes(bundle.predictor));
  bundle.manifest["base"] = "../shared/base";
  bundle.manifest["predictor"] = "maps.safetensors";
  bundle.manifest["default_prefill"] = "kv-prediction:tail=4";
  bundle.manifest["training"] = {{"steps", 7}};
  root.write("one/kvcast.json", bundle.manifest.dump());
  const fs::path out = root.path() / "out" / "";  // with a slash at its end
  expect_converted({.source = root.path() / "one", .output = out, .type = WeightType::kInt8});

  EXPECT_EQ(*read_text_file(out / "base" / "tokenizer.model"), "pieces");
  Json expected = bundle.manifest;
  expected["base"] = "base";
  expected["predictor"] = "predictor.safetensors";
  EXPECT_EQ(*read_json_object(out / "kvcast.json"), expected);
  EXPECT_EQ(logits(out, WeightType::kInt8, "kv-prediction"),
            logits(root.path() / "one", WeightType::kInt8, "kv-prediction"));
}

TEST(ConvertModel, ShardsStayBelowTheLimitAndHoldEverythingOnce) {
  const TemporaryDirectory root;
  ModelConfig shape = tiny_base_shape();
  shape.tied_embeddings = false;
  const ModelFiles model = ModelFiles::of(shape, 3);
  model.write(root, "in");
  const fs::path in = root.path() / "in", whole = root.path() / "whole", out = root.path() / "out";
  expect_converted({.source = in, .output = whole});
  constexpr int64_t kLimit = 50'000;
  expect_converted({.source = in, .output = out, .shard_bytes = kLimit});
  int shards = 0;
  for (const auto& entry : fs::directory_iterator(out)) {
    if (entry.path().extension() != ".safetensors") continue;
    ++shards;
    EXPECT_LE(entry.file_size(), static_cast<size_t>(kLimit));
  }
  EXPECT_GT(shards, 1);
  const auto one = *Safetensors::open_checkpoint(whole), many = *Safetensors::open_checkpoint(out);
  ASSERT_EQ(one->tensors().size(), many->tensors().size());
  for (const auto& [name, tensor] : one->tensors()) {
    EXPECT_TRUE(std::ranges::equal(tensor.bytes, many->find(name)->bytes)) << name;
  }
  EXPECT_EQ(logits(out, std::nullopt, "exact"), logits(in, std::nullopt, "exact"));
}

}  // namespace
}  // namespace kvcast

// The training step of a qwen2 base with a llama auxiliary against PyTorch and transformers
// (tests/golden/make_golden.py).
#include <gtest/gtest.h>

#include <filesystem>

#include "io/json.h"
#include "train/data/error.h"
#include "train/model_files.h"
#include "train/probe.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(KVCAST_GOLDEN_DIR) / "qwen2-llama-kvp";

void expect_close(const Json& actual, const Json& expected, double tolerance) {
  for (const auto& [name, value] : expected.items()) {
    ASSERT_TRUE(actual.contains(name)) << name;
    EXPECT_LT(std::abs(actual[name].get<double>() / value.get<double>() - 1.0), tolerance) << name;
  }
}

TEST(FamiliesTrainingStep, LossesAndGradientNormsAgree) {
  const Json expected = unwrap(read_json_object(kGolden / "expected.json"));
  ProbeOptions options;
  options.bundle = kGolden;
  options.batch = kGolden / "batch.safetensors";
  options.lambda_consistency = expected["lambda_consistency"].get<double>();
  const ProbeResult result = probe(options);
  expect_close(result.report["losses"], expected["losses"], 1e-4);
  ASSERT_EQ(result.report["grad_norms"].size(), expected["grad_norms"].size());
  expect_close(result.report["grad_norms"], expected["grad_norms"], 1e-3);
}

TEST(FamiliesModelFiles, AWrittenModelIsReadBackTheSame) {
  for (const char* name : {"llama", "llama3", "mistral", "qwen2", "qwen3"}) {
    const auto source = std::filesystem::path(KVCAST_GOLDEN_DIR) / "families" / name;
    const TemporaryDirectory root;
    const LoadedModel model = load_model(source);
    write_model(root.path() / "copy", model.config, model.values, {}, source);
    const LoadedModel copy = load_model(root.path() / "copy");
    EXPECT_EQ(copy.config.layers, model.config.layers) << name;
    EXPECT_EQ(copy.config.eos_tokens, model.config.eos_tokens) << name;
    ASSERT_EQ(copy.values.size(), model.values.size()) << name;
    for (const auto& [tensor, value] : model.values) {
      EXPECT_TRUE(at::equal(copy.values.at(tensor), value)) << name << ": " << tensor;
    }
    const auto plain = unwrap(Safetensors::open_checkpoint(source));
    const auto written = unwrap(Safetensors::open_checkpoint(root.path() / "copy"));
    EXPECT_EQ(written->tensors().size(), plain->tensors().size()) << name;
  }
}

}  // namespace
}  // namespace kvcast::train

// Two models of one tokenizer that pad it to different sizes (as Qwen's do) make a bundle.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "prefill/strategy.h"
#include "runtime/convert.h"
#include "support/bundle_files.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

std::vector<float> logits(const fs::path& model, const char* spec) {
  const auto models = load_models(model, WeightType::kF32, 2);
  EXPECT_TRUE(models) << models.error().message;
  if (!models) return {};
  Sequence sequence(*models);
  sequence.tokens = {1, 5, 399, 3, 44, 9};
  Sequence* const batch[] = {&sequence};
  std::vector<float> out(static_cast<size_t>(models->base->config().vocab_size));
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(*models, batch, out.data(), workspace, {});
  return out;
}

class SharedTokenizer : public testing::Test {
 protected:
  SharedTokenizer() {
    ModelConfig padded = tiny_base_shape();
    padded.vocab_size = 470;
    bundle_.base = ModelFiles::of(padded, 0);
    bundle_.write(root_);
    for (const char* model : {"base", "auxiliary"}) {
      fs::copy_file(kTestTokenizer, root_.path() / model / "tokenizer.model");
    }
  }
  TemporaryDirectory root_;
  BundleFiles bundle_;
};

TEST_F(SharedTokenizer, WhatOneModelLacksIsNotLoadedOfTheOther) {
  auto expected = logits(root_.path() / "base", "exact");
  ASSERT_EQ(expected.size(), 470U);
  expected.resize(400);
  EXPECT_EQ(logits(root_.path(), "exact"), expected);
  const auto predicted = logits(root_.path(), "kv-prediction");

  const fs::path packed = root_.path() / "packed";
  ASSERT_TRUE(convert({.source = root_.path(), .output = packed, .type = WeightType::kF32}));
  EXPECT_EQ(logits(packed, "exact"), expected);
  EXPECT_EQ(logits(packed, "kv-prediction"), predicted);
}

TEST_F(SharedTokenizer, AnotherTokenizerIsRefused) {
  root_.write("auxiliary/tokenizer.model", "other pieces");
  const auto models = load_models(root_.path(), WeightType::kF32, 1);
  ASSERT_FALSE(models);
  EXPECT_NE(models.error().message.find("base's tokenizer"), std::string::npos)
      << models.error().message;
}

}  // namespace
}  // namespace kvcast

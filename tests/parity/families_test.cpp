// Tiny random models of each family against the numbers that transformers computes on them
// (tests/golden/make_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "prefill/strategy.h"
#include "runtime/convert.h"
#include "support/temporary_directory.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

class Family : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto expected = Safetensors::open(directory_ / "expected.safetensors");
    ASSERT_TRUE(expected) << expected.error().message;
    const auto shape = (*expected)->find("logits")->shape;  // [prompts, tokens, vocabulary]
    prompts_ = shape[0], tokens_ = shape[1], vocab_ = shape[2];
    ids_ = int_values(**expected, "input_ids");
    logits_ = float_values(**expected, "logits");
    greedy_ = int_values(**expected, "greedy_tokens");
  }

  static Models load(const std::filesystem::path& directory, WeightType type) {
    auto models = load_models(directory, type, 2);
    EXPECT_TRUE(models) << models.error().message;
    return std::move(*models);
  }

  [[nodiscard]] std::vector<int32_t> prompt(int64_t p) const {
    return {ids_.begin() + p * tokens_, ids_.begin() + (p + 1) * tokens_};
  }
  /// What is expected after the first `tokens` of a prompt.
  [[nodiscard]] std::vector<float> expected_logits(int64_t p, int64_t tokens) const {
    const auto* const row = logits_.data() + (p * tokens_ + tokens - 1) * vocab_;
    return {row, row + vocab_};
  }

  /// Reads the prompt up to each of `cuts` in turn and compares the logits there.
  void expect_logits(const Models& models, const std::vector<int64_t>& cuts, double tolerance) {
    for (int64_t p = 0; p < prompts_; ++p) {
      Sequence sequence(models);
      Sequence* const batch[] = {&sequence};
      std::vector<float> out(static_cast<size_t>(vocab_));
      PrefillWorkspace workspace;
      const auto whole = prompt(p);
      for (const int64_t cut : cuts) {
        sequence.tokens.assign(whole.begin(), whole.begin() + cut);
        (*PrefillStrategy::parse("exact"))->prefill(models, batch, out.data(), workspace, {});
        EXPECT_LT(relative_to_largest(out, expected_logits(p, cut)), tolerance)
            << "prompt " << p << ", token " << cut;
      }
    }
  }

  const std::filesystem::path directory_ =
      std::filesystem::path(KVCAST_GOLDEN_DIR) / "families" / GetParam();
  int64_t prompts_ = 0, tokens_ = 0, vocab_ = 0;
  std::vector<int64_t> ids_, greedy_;
  std::vector<float> logits_;
};

TEST_P(Family, LogitsOfWholePromptsAndOfChunksMatch) {
  const Models models = load(directory_, WeightType::kF32);
  expect_logits(models, {tokens_}, 2e-4);
  expect_logits(models, {1, 2, 9, 17, tokens_}, 2e-4);
}

TEST_P(Family, GreedyTokensAreEqual) {
  const Models models = load(directory_, WeightType::kF32);
  const auto steps = static_cast<int64_t>(greedy_.size()) / prompts_;
  for (int64_t p = 0; p < prompts_; ++p) {
    Sequence sequence(models);
    sequence.tokens = prompt(p);
    Sequence* const batch[] = {&sequence};
    std::vector<float> out(static_cast<size_t>(vocab_));
    PrefillWorkspace workspace;
    (*PrefillStrategy::parse("exact"))->prefill(models, batch, out.data(), workspace, {});
    for (int64_t step = 0; step < steps; ++step) {
      const auto token = std::ranges::max_element(out) - out.begin();
      ASSERT_EQ(token, greedy_[p * steps + step]) << "prompt " << p << ", step " << step;
      sequence.tokens.push_back(static_cast<int32_t>(token));
      decode_step(models, batch, out.data(), workspace);
    }
  }
}

TEST_P(Family, APackedCopyComputesTheSame) {
  const TemporaryDirectory root;
  const auto packed = root.path() / "packed";
  const auto status = convert({.source = directory_, .output = packed, .type = WeightType::kF32});
  ASSERT_TRUE(status) << status.error().message;
  expect_logits(load(packed, WeightType::kF32), {tokens_}, 2e-4);
}

// On random weights, whose logits are far larger than a trained model's, bf16 costs some per cent.
TEST_P(Family, Bf16StaysNearby) {
  expect_logits(load(directory_, WeightType::kBf16), {tokens_}, 1e-1);
}

INSTANTIATE_TEST_SUITE_P(Golden, Family,
                         testing::Values("llama", "llama3", "mistral", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace kvcast

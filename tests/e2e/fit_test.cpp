// `kvcast fit` as somebody at a terminal sees it: a bundle, in one go, in shards, in two goes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>

#include "io/safetensors.h"
#include "support/bundle_files.h"
#include "support/run_program.h"

namespace kvcast {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class FitCommand : public ::testing::Test {
 protected:
  FitCommand() {
    ModelConfig shape = tiny_base_shape();
    shape.max_context_tokens = 64;
    shape.layers = {{2, 1, 16}, {4, 2, 32}, {2, 1, 16}, {4, 2, 32}, {2, 1, 16}};
    ModelFiles::of(shape, 0).write(files_, "base");
    std::filesystem::copy_file(kTestTokenizer, files_.path() / "base/tokenizer.model");
    std::string text;
    for (int i = 0; i < 900; ++i) {
      text += "line " + std::to_string(i * i % 997) + " of a text about " +
              (i % 3 == 0   ? "rivers"
               : i % 3 == 1 ? "towns"
                            : "songs") +
              ", " + std::to_string(i) + "\n";
    }
    files_.write("text.txt", text);
  }

  [[nodiscard]] std::string path(const std::string& name) const {
    return "'" + (files_.path() / name).string() + "'";
  }
  [[nodiscard]] ProgramResult fit(const std::string& out, const std::string& more = "") const {
    return run_kvcast("fit " + path("base") + " self:2 --window 32 --tokens 3840 --sink-tokens 2" +
                      " --data " + path("text.txt") + " --out " + path(out) + " " + more);
  }
  /// Of the predictor's weights, relative to the largest.
  [[nodiscard]] double difference(const std::string& a, const std::string& b) const {
    const auto first = Safetensors::open(files_.path() / a / "predictor.safetensors");
    const auto second = Safetensors::open(files_.path() / b / "predictor.safetensors");
    if (!first || !second) return INFINITY;
    double difference = 0, largest = 0;
    for (const auto& [name, tensor] : (*first)->tensors()) {
      const auto other = (*second)->find(name);
      if (!other || other->bytes.size() != tensor.bytes.size()) return INFINITY;
      if (tensor.dtype != DType::kBF16) continue;
      for (size_t i = 0; i + 1 < tensor.bytes.size(); i += 2) {
        const auto value = [i](const TensorView& view) {
          uint32_t bits = 0;
          std::memcpy(reinterpret_cast<char*>(&bits) + 2, view.bytes.data() + i, 2);
          float read = 0;
          std::memcpy(&read, &bits, sizeof read);
          return double{read};
        };
        difference = std::max(difference, std::abs(value(tensor) - value(*other)));
        largest = std::max(largest, std::abs(value(tensor)));
      }
    }
    return difference / largest;
  }

  TemporaryDirectory files_;
};

TEST_F(FitCommand, MakesABundleAndSaysWhatItKeeps) {
  const auto result = fit("bundle");
  ASSERT_EQ(result.exit_code, 0) << result.error;
  EXPECT_THAT(result.out, AllOf(HasSubstr("| 3 | base 2 residual |"), HasSubstr("KL from exact"),
                                HasSubstr("| exact |"), HasSubstr("| kv-prediction |")));
  const auto asked = run_kvcast("run " + path("bundle") + " -n 4 --prefill kv-prediction 'a text'");
  EXPECT_EQ(asked.exit_code, 0) << asked.error;
  const auto again = fit("bundle");
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_THAT(again.error, HasSubstr("exists already"));
}

TEST_F(FitCommand, ShardsMakeTheSameMaps) {
  ASSERT_EQ(fit("whole").exit_code, 0);
  for (const std::string k : {"1", "2", "3"}) {
    const auto part = fit("sums-" + k, "--shard " + k + "/3");
    ASSERT_EQ(part.exit_code, 0) << part.error;
  }
  const auto merged =
      fit("merged", "--merge " + path("sums-1") + " " + path("sums-2") + " " + path("sums-3"));
  ASSERT_EQ(merged.exit_code, 0) << merged.error;
  // Other windows are held out, a tenth of each shard's, so that the maps are near, not the same.
  EXPECT_LT(difference("whole", "merged"), 0.35);
  ASSERT_EQ(
      fit("once-more", "--merge " + path("sums-3") + " " + path("sums-1") + " " + path("sums-2"))
          .exit_code,
      0);
  EXPECT_LT(difference("merged", "once-more"), 0.01);  // the order does not matter
}

TEST_F(FitCommand, AnotherFitsSumsAreRefused) {
  ASSERT_EQ(fit("sums", "--shard 1/2").exit_code, 0);
  const auto other =
      run_kvcast("fit " + path("base") + " self:1 --window 32 --tokens 3840 --data " +
                 path("text.txt") + " --out " + path("x") + " --merge " + path("sums"));
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.error, HasSubstr("sums: statistics of"));
  EXPECT_EQ(std::ranges::count(other.error, '\n'), 1);
}

TEST_F(FitCommand, GoesOnWhereItWasInterrupted) {
  ASSERT_EQ(fit("whole").exit_code, 0);
  // Interrupted at once, or a little later: whatever was read is not read again.
  Program first({std::string(KVCAST_BINARY_DIR) + "/kvcast", "fit",
                 (files_.path() / "base").string(), "self:2", "--window", "32", "--tokens", "3840",
                 "--sink-tokens", "2", "--data", (files_.path() / "text.txt").string(), "--out",
                 (files_.path() / "resumed").string()});
  ASSERT_TRUE(first.has_blocked(SIGINT));
  first.send(SIGINT);
  const int status = first.wait();
  if (status != 0) {
    EXPECT_FALSE(std::filesystem::exists(files_.path() / "resumed"));
    const auto second = fit("resumed");
    ASSERT_EQ(second.exit_code, 0) << second.error;
  }
  EXPECT_LT(difference("whole", "resumed"), 0.01);
  EXPECT_FALSE(std::filesystem::exists(files_.path() / "resumed.statistics"));
}

TEST_F(FitCommand, AnotherTokenizerIsAClearNo) {
  ModelConfig shape = tiny_auxiliary_shape();
  shape.vocab_size = 20'000;
  shape.max_context_tokens = 64;
  ModelFiles::of(shape, 5).write(files_, "other");
  std::filesystem::copy_file(
      std::filesystem::path(KVCAST_SOURCE_DIR) / "models/kvcast-65m/base/tokenizer.model",
      files_.path() / "other/tokenizer.model");
  const auto result = run_kvcast("fit " + path("base") + " " + path("other") + " --data " +
                                 path("text.txt") + " --out " + path("x"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.error, HasSubstr("other: another tokenizer than that of"));
  EXPECT_EQ(std::ranges::count(result.error, '\n'), 1) << result.error;
  EXPECT_FALSE(std::filesystem::exists(files_.path() / "x"));
}

}  // namespace
}  // namespace kvcast

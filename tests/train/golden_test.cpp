// The training step against the numbers that the paper authors' code computes (tests/golden).
#include <gtest/gtest.h>

#include <filesystem>

#include "io/json.h"
#include "io/safetensors.h"
#include "train/data/error.h"
#include "train/probe.h"
#include "train/tensor_io.h"

namespace kvcast::train {
namespace {

const std::filesystem::path kPaperNumbers =
    std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

class GoldenTrainingStep : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    expected_ = new Json(unwrap(read_json_object(kPaperNumbers / "expected.json")));
    tensors_ = unwrap(Safetensors::open(kPaperNumbers / "expected.safetensors")).release();
    ProbeOptions options;
    options.bundle = kPaperNumbers;
    options.batch = kPaperNumbers / "batch.safetensors";
    options.loss.cross_entropy.ignore_index = (*expected_)["ignore_index"].get<int64_t>();
    options.lambda_consistency = (*expected_)["lambda_consistency"].get<double>();
    // Small enough that the 18 rows need several chunks.
    options.loss.cross_entropy.chunk_elements = 7 * 96;
    result_ = new ProbeResult(probe(options));
  }

  /// Largest |actual - expected| over the largest |expected|.
  static double relative_error(const std::string& name) {
    const Tensor expected = to_tensor(unwrap(tensors_->find(name)));
    const Tensor actual = result_->tensors.at(name).detach();
    EXPECT_EQ(actual.sizes(), expected.sizes()) << name;
    return (actual - expected).abs().max().item<double>() / expected.abs().max().item<double>();
  }

  static Json* expected_;
  static Safetensors* tensors_;
  static ProbeResult* result_;
};
Json* GoldenTrainingStep::expected_ = nullptr;
Safetensors* GoldenTrainingStep::tensors_ = nullptr;
ProbeResult* GoldenTrainingStep::result_ = nullptr;

TEST_F(GoldenTrainingStep, EveryLossTermAgrees) {
  const Json& losses = result_->report["losses"];
  ASSERT_EQ(losses.size(), (*expected_)["losses"].size());
  double worst = 0.0;
  for (const auto& [name, value] : (*expected_)["losses"].items()) {
    ASSERT_TRUE(losses.contains(name)) << name;
    const double error = std::abs(losses[name].get<double>() / value.get<double>() - 1.0);
    EXPECT_LT(error, 1e-4) << name;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_F(GoldenTrainingStep, EveryGradientNormAgrees) {
  const Json& norms = result_->report["grad_norms"];
  ASSERT_EQ(norms.size(), (*expected_)["grad_norms"].size());
  double worst = 0.0;
  for (const auto& [name, value] : (*expected_)["grad_norms"].items()) {
    ASSERT_TRUE(norms.contains(name)) << name;
    const double error = std::abs(norms[name].get<double>() / value.get<double>() - 1.0);
    EXPECT_LT(error, 1e-3) << name;
    worst = std::max(worst, error);
  }
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_F(GoldenTrainingStep, GradientsLogitsAndCachesAgree) {
  int gradients = 0, others = 0;
  double worst_gradient = 0.0, worst_other = 0.0;
  for (const auto& [name, view] : tensors_->tensors()) {
    if (name.starts_with("grad/")) {
      const double error = relative_error(name);
      EXPECT_LT(error, 1e-3) << name;
      worst_gradient = std::max(worst_gradient, error);
      ++gradients;
    } else if ((name.starts_with("train/") && name != "train/targets") || name == "exact/logits" ||
               name == "auxiliary/logits") {
      const double error = relative_error(name);
      EXPECT_LT(error, 1e-4) << name;
      worst_other = std::max(worst_other, error);
      ++others;
    }
  }
  EXPECT_EQ(gradients, 28);
  EXPECT_EQ(others, 24);
  RecordProperty("worst_gradient_error", std::to_string(worst_gradient));
  RecordProperty("worst_logit_or_cache_error", std::to_string(worst_other));
}

}  // namespace
}  // namespace kvcast::train

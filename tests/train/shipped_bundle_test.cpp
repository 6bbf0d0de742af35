// The runtime's forward pass and the trainer's, on the bundle that the repository ships and on a
// small one of the paper's kind.
#include <gtest/gtest.h>

#include <filesystem>

#include "prefill/strategy.h"
#include "support/tensors.h"
#include "train/forecast_fit.h"
#include "train/kvp_loss.h"
#include "train/model_files.h"
#include "train/predictor.h"

namespace kvcast {
namespace {

const std::filesystem::path kBundle =
    std::filesystem::path(KVCAST_SOURCE_DIR) / "models" / "kvcast-65m";
constexpr double kTolerance = 2e-4;  // of the largest logit, both in f32

std::vector<int32_t> some_tokens(int64_t vocab_size) {
  std::vector<int32_t> tokens = {1};
  for (int64_t i = 1; i < 96; ++i)
    tokens.push_back(static_cast<int32_t>(3 + i * 389 % (vocab_size - 3)));
  return tokens;
}

at::Tensor as_batch(const std::vector<int32_t>& tokens) {
  at::Tensor batch = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), batch.data_ptr<int64_t>());
  return batch;
}

std::vector<float> last_logits(const train::Model& model, const at::Tensor& hidden) {
  const at::Tensor row = train::logits(model, hidden).reshape({-1, model.config.vocab_size})[-1];
  const at::Tensor last = row.contiguous();
  return {last.data_ptr<float>(), last.data_ptr<float>() + last.numel()};
}

train::Model bound(const train::LoadedModel& model) {
  const train::RopeTable rope =
      train::rope_table(model.config, model.config.max_context_tokens, at::kCPU);
  return train::bind_model(model.config, rope, model.values, "");
}

std::vector<float> runtime_logits(const Models& models, const std::string& spec,
                                  const std::vector<int32_t>& tokens) {
  Sequence sequence(models);
  Sequence* const batch[] = {&sequence};
  sequence.tokens = tokens;
  std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
  return logits;
}

class ShippedBundle : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto loaded = load_models(kBundle, WeightType::kF32, 2);
    ASSERT_TRUE(loaded) << loaded.error().message;
    runtime_ = new Models(std::move(*loaded));
    manifest_ = new BundleManifest(*read_bundle_manifest(kBundle));
    bundle_ = new train::LoadedModels(train::load_models(manifest_->base, manifest_->auxiliary));
  }
  static void TearDownTestSuite() {
    delete runtime_;
    delete manifest_;
    delete bundle_;
  }

  static inline Models* runtime_ = nullptr;
  static inline BundleManifest* manifest_ = nullptr;
  static inline train::LoadedModels* bundle_ = nullptr;
};

TEST_F(ShippedBundle, RuntimeAndTrainerAgreeOnBaseAndAuxiliary) {
  const at::NoGradGuard no_gradients;
  const auto tokens = some_tokens(runtime_->base->config().vocab_size);
  const train::Model base = bound(bundle_->base), auxiliary = bound(bundle_->auxiliary);
  EXPECT_LT(relative_to_largest(runtime_logits(*runtime_, "exact", tokens),
                                last_logits(base, train::forward(base, as_batch(tokens)))),
            kTolerance);
  EXPECT_LT(
      relative_to_largest(runtime_logits(*runtime_, "auxiliary", tokens),
                          last_logits(auxiliary, train::forward(auxiliary, as_batch(tokens)))),
      kTolerance);
}

TEST_F(ShippedBundle, TheSplitPassOfTrainingIsTheRuntimesKvPrediction) {
  const at::NoGradGuard no_gradients;
  const auto tokens = some_tokens(runtime_->base->config().vocab_size);
  const train::Model base = bound(bundle_->base), auxiliary = bound(bundle_->auxiliary);
  const train::ForecastShape shape{manifest_->plan.exact_layers, manifest_->plan.sink_tokens};
  const train::TensorMap maps = train::read_predictor(
      manifest_->predictor, base.config, auxiliary.config, manifest_->plan,
      train::forecast_map_specs(base.config, shape, auxiliary.config.model_dim));
  std::vector<int64_t> sources;
  for (const ForecastInput& input : manifest_->plan.inputs) sources.push_back(input.layer);
  const train::Predictor predictor = train::bind_predictor(sources, maps, "");
  const at::Tensor batch = as_batch(tokens);
  const train::ExactRun exact = train::run_exact(base, shape, batch);
  for (const int64_t tail : {1, 16}) {
    const train::KvpPass pass{.predicted_tokens = static_cast<int64_t>(tokens.size()) - tail};
    const train::Cache forecast =
        train::forecast_cache(base, shape, predictor, exact,
                              train::forecast_sources(auxiliary, exact, pass.predicted_tokens));
    EXPECT_LT(relative_to_largest(
                  runtime_logits(*runtime_, "kv-prediction:tail=" + std::to_string(tail), tokens),
                  last_logits(base, train::run_on_forecast(base, shape, exact, forecast, pass))),
              kTolerance)
        << "tail " << tail;
  }
}

TEST(PapersKindOfBundle, TheSplitPassOfTrainingIsTheRuntimesKvPrediction) {
  const at::NoGradGuard no_gradients;
  const auto path = std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/golden/openelm-tiny-kvp-c";
  const auto models = load_models(path, WeightType::kF32, 2);
  ASSERT_TRUE(models) << models.error().message;
  const train::LoadedBundle bundle = train::load_bundle(path);
  const train::Model base = bound(bundle.base), auxiliary = bound(bundle.auxiliary);
  const train::Predictor predictor =
      train::bind_predictor(bundle.manifest.plan.layer_map(), bundle.predictor, "");
  auto tokens = some_tokens(base.config.vocab_size);
  tokens.resize(48);  // its context is of 64
  const at::Tensor batch = as_batch(tokens);
  for (const int64_t tail : {1, 16}) {
    train::KvpTrace trace;
    const train::KvpPass pass{.predicted_tokens = static_cast<int64_t>(tokens.size()) - tail};
    train::kvp_loss(base, auxiliary, predictor, batch, batch, {}, pass, &trace);
    EXPECT_LT(relative_to_largest(
                  runtime_logits(*models, "kv-prediction:tail=" + std::to_string(tail), tokens),
                  last_logits(base, trace.base_hidden)),
              kTolerance)
        << "tail " << tail;
  }
}

}  // namespace
}  // namespace kvcast

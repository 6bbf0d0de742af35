// With the base as its own auxiliary and an identity predictor, KV prediction is exact.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "prefill/strategy.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

/// The golden bundle's base on both sides, and W = I, b = 0.
class IdentityBundle {
 public:
  IdentityBundle() {
    fs::create_directories(directory_);
    const fs::path golden = fs::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";
    for (const char* role : {"base", "auxiliary"}) {
      fs::copy(golden / "base", directory_ / role, fs::copy_options::recursive);
    }
    std::ofstream(directory_ / "kvcast.json")
        << R"({"format": 1, "base": "base", "auxiliary": "auxiliary",)"
        << R"( "predictor": "predictor.safetensors", "layer_map": [0, 1, 2, 3, 4]})";
    write_predictor(*read_model_config(directory_ / "base"));
  }
  ~IdentityBundle() { fs::remove_all(directory_); }
  IdentityBundle(const IdentityBundle&) = delete;
  IdentityBundle& operator=(const IdentityBundle&) = delete;
  [[nodiscard]] const fs::path& path() const { return directory_; }

 private:
  void write_predictor(const ModelConfig& config) {
    std::vector<std::vector<float>> storage;
    std::vector<TensorToWrite> tensors;
    storage.reserve(4 * config.layers.size());
    for (int64_t i = 0; i < config.n_layers(); ++i) {
      const int64_t width = config.kv_width(i);
      for (const std::string kind : {"key", "value"}) {
        auto& weight = storage.emplace_back(static_cast<size_t>(width * width));
        for (int64_t c = 0; c < width; ++c) weight[c * width + c] = 1.0F;
        const std::string name = kind + "_transforms." + std::to_string(i);
        tensors.push_back(
            {name + ".weight", DType::kF32, {width, width}, std::as_bytes(std::span(weight))});
        auto& bias = storage.emplace_back(static_cast<size_t>(width));
        tensors.push_back({name + ".bias", DType::kF32, {width}, std::as_bytes(std::span(bias))});
      }
    }
    ASSERT_TRUE(write_safetensors(directory_ / "predictor.safetensors", tensors));
  }

  fs::path directory_ = fs::path(testing::TempDir()) / "kvcast-identity-bundle";
};

TEST(Identity, PredictedCacheAndLogitsEqualExactWhenPredictorIsIdentity) {
  const IdentityBundle bundle;
  auto loaded = load_models(bundle.path(), WeightType::kF32, 2);
  ASSERT_TRUE(loaded) << loaded.error().message;
  const Models& models = *loaded;
  PrefillWorkspace workspace;
  const auto run = [&](const char* spec, Sequence& sequence) {
    Sequence* const batch[] = {&sequence};
    std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
    sequence.tokens = {5, 17, 3, 40, 41, 42, 9, 80, 1, 2, 33, 64};
    (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
    return logits;
  };
  Sequence exact(models);
  const auto exact_logits = run("exact", exact);
  for (const char* spec : {"kv-prediction", "kv-prediction:tail=5"}) {
    Sequence predicted(models);
    EXPECT_LT(relative_to_largest(run(spec, predicted), exact_logits), 1e-5) << spec;
    for (int64_t layer = 0; layer < exact.base.n_layers(); ++layer) {
      EXPECT_LT(largest_difference(cached_values(predicted.base, layer),
                                   cached_values(exact.base, layer)),
                1e-4);
      EXPECT_LT(largest_difference(keys_without_rope(predicted.base, layer, *models.base),
                                   keys_without_rope(exact.base, layer, *models.base)),
                1e-4);
    }
  }
}

}  // namespace
}  // namespace kvcast

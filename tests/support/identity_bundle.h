// A bundle whose predictor is the identity, on the golden bundle's base.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/config.h"
#include "support/temporary_directory.h"

namespace kvcast {

/// The golden bundle's base on both sides, W = I, and b = 0 for keys.
class IdentityBundle {
 public:
  explicit IdentityBundle(float value_bias = 0) {
    namespace fs = std::filesystem;
    const fs::path golden_base = fs::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c" / "base";
    for (const char* role : {"base", "auxiliary"}) {
      fs::copy(golden_base, path() / role, fs::copy_options::recursive);
    }
    root_.write("kvcast.json",
                R"({"format": 1, "base": "base", "auxiliary": "auxiliary",)"
                R"( "predictor": "predictor.safetensors", "layer_map": [0, 1, 2, 3, 4]})");
    write_predictor(*read_model_config(golden_base), value_bias);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return root_.path(); }

 private:
  void write_predictor(const ModelConfig& config, float value_bias) const {
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
        auto& bias =
            storage.emplace_back(static_cast<size_t>(width), kind == "key" ? 0 : value_bias);
        tensors.push_back({name + ".bias", DType::kF32, {width}, std::as_bytes(std::span(bias))});
      }
    }
    ASSERT_TRUE(write_safetensors(path() / "predictor.safetensors", tensors));
  }

  TemporaryDirectory root_;
};

}  // namespace kvcast

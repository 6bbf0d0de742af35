// A KV-prediction bundle with random weights and a real tokenizer, made for one test program.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/architectures.h"
#include "model/family.h"
#include "support/temporary_directory.h"

namespace kvcast {

/// Collects random f32 tensors and writes them as one file.
class RandomTensors {
 public:
  explicit RandomTensors(unsigned seed) : random_(seed) {}

  void add(std::string name, std::vector<int64_t> shape, float scale) {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    std::normal_distribution<float> normal(0, scale);
    auto& values = values_.emplace_back(static_cast<size_t>(count));
    for (float& value : values) value = normal(random_);
    tensors_.push_back({std::move(name), DType::kF32, std::move(shape), {}});
  }
  void add_ones(std::string name, int64_t count) {
    values_.emplace_back(static_cast<size_t>(count), 1.0F);
    tensors_.push_back({std::move(name), DType::kF32, {count}, {}});
  }
  void write(const std::filesystem::path& file) {
    for (size_t i = 0; i < tensors_.size(); ++i)
      tensors_[i].bytes = std::as_bytes(std::span(values_[i]));
    const Status status = write_safetensors(file, tensors_);
    ASSERT_TRUE(status) << status.error().message;
  }

 private:
  std::mt19937 random_;
  std::vector<std::vector<float>> values_;
  std::vector<TensorToWrite> tensors_;
};

class TinyBundle {
 public:
  explicit TinyBundle(int64_t vocab_size = 400) {
    base_ = make_openelm_config({.n_layers = 4,
                                 .model_dim = 64,
                                 .head_dim = 16,
                                 .gqa_groups = 2,
                                 .ffn_dim_divisor = 32,
                                 .vocab_size = vocab_size,
                                 .max_context_tokens = 256});
    auxiliary_ = make_openelm_config({.n_layers = 2,
                                      .model_dim = 32,
                                      .head_dim = 16,
                                      .gqa_groups = 2,
                                      .ffn_dim_divisor = 32,
                                      .vocab_size = vocab_size,
                                      .max_context_tokens = 256});
    write_model("base", base_, 1);
    write_model("auxiliary", auxiliary_, 2);
    std::filesystem::copy_file(
        std::filesystem::path(KVCAST_SOURCE_DIR) / "tests/data/tokenizer.model",
        path() / "base/tokenizer.model");
    RandomTensors predictor(3);
    const std::vector<int64_t> map = {0, 0, 1, 1};
    for (int64_t i = 0; i < base_.n_layers(); ++i) {
      for (const std::string kind : {"key", "value"}) {
        const std::string name = kind + "_transforms." + std::to_string(i) + ".";
        const int64_t width = base_.kv_width(i),
                      from = auxiliary_.kv_width(map[static_cast<size_t>(i)]);
        predictor.add(name + "weight", {width, from}, 0.3F);
        predictor.add(name + "bias", {width}, 0.1F);
      }
    }
    predictor.write(path() / "predictor.safetensors");
    directory_.write("kvcast.json",
                     R"({"format": 1, "base": "base", "auxiliary": "auxiliary",)"
                     R"( "predictor": "predictor.safetensors", "layer_map": [0, 0, 1, 1]})");
  }

  [[nodiscard]] const std::filesystem::path& path() const { return directory_.path(); }

 private:
  void write_model(const std::string& name, const ModelConfig& config, unsigned seed) {
    directory_.write(name + "/config.json", to_config_json(config));
    RandomTensors tensors(seed);
    const float scale = 1.0F / std::sqrt(static_cast<float>(config.model_dim));
    const StoredForm& form = family_of(config).checkpoint;
    for (const LayoutEntry& entry : tensor_layout(config, form, form)) {
      if (entry.is_matrix()) {
        tensors.add(entry.name, entry.shape(), entry.role == Role::kEmbeddings ? 1.0F : scale);
      } else {
        tensors.add_ones(entry.name, entry.rows);
      }
    }
    tensors.write(path() / name / "model.safetensors");
  }

  TemporaryDirectory directory_;
  ModelConfig base_, auxiliary_;
};

}  // namespace kvcast

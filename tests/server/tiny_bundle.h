// A KV-prediction bundle with random weights and a real tokenizer, made for one test program.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/config.h"
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
  TinyBundle() {
    base_ = make_openelm_config({.n_layers = 4,
                                 .model_dim = 64,
                                 .head_dim = 16,
                                 .gqa_groups = 2,
                                 .ffn_dim_divisor = 32,
                                 .vocab_size = 400,
                                 .max_context_tokens = 256});
    auxiliary_ = make_openelm_config({.n_layers = 2,
                                      .model_dim = 32,
                                      .head_dim = 16,
                                      .gqa_groups = 2,
                                      .ffn_dim_divisor = 32,
                                      .vocab_size = 400,
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
    const int64_t dim = config.model_dim;
    const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
    tensors.add(std::string(kEmbeddingsTensor), {config.vocab_size, dim}, 1.0F);
    tensors.add_ones(std::string(kFinalNormTensor), dim);
    for (int64_t i = 0; i < config.n_layers(); ++i) {
      const int64_t ffn = config.layers[static_cast<size_t>(i)].ffn_dim;
      const auto add = [&](const char* suffix, std::vector<int64_t> shape) {
        tensors.add(layer_tensor_name(i, suffix), std::move(shape), scale);
      };
      add("attn.qkv_proj.weight", {config.query_width(i) + 2 * config.kv_width(i), dim});
      add("attn.out_proj.weight", {dim, config.query_width(i)});
      add("ffn.proj_1.weight", {2 * ffn, dim});
      add("ffn.proj_2.weight", {dim, ffn});
      tensors.add_ones(layer_tensor_name(i, "attn.q_norm.weight"), config.head_dim);
      tensors.add_ones(layer_tensor_name(i, "attn.k_norm.weight"), config.head_dim);
      tensors.add_ones(layer_tensor_name(i, "attn_norm.weight"), dim);
      tensors.add_ones(layer_tensor_name(i, "ffn_norm.weight"), dim);
    }
    tensors.write(path() / name / "model.safetensors");
  }

  TemporaryDirectory directory_;
  ModelConfig base_, auxiliary_;
};

}  // namespace kvcast

// Tiny model directories and bundles in memory, so that a test can make one thing wrong about them
// and write them out.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "model/family.h"
#include "support/temporary_directory.h"

namespace kvcast {

/// One tensor as a safetensors file holds it. Nothing here checks that the parts fit each other.
struct StoredTensor {
  std::string dtype = "F32";
  std::vector<int64_t> shape;
  std::string bytes;
};
using StoredTensors = std::map<std::string, StoredTensor>;

/// An F32 tensor of small numbers that differ from element to element and from seed to seed.
inline StoredTensor some_numbers(std::vector<int64_t> shape, int seed) {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  StoredTensor tensor{"F32", std::move(shape), std::string(static_cast<size_t>(count) * 4, '\0')};
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(std::sin(1.0 + seed * 17.0 + static_cast<double>(i)));
    std::memcpy(tensor.bytes.data() + i * 4, &value, sizeof value);
  }
  return tensor;
}

inline void fill(StoredTensor& tensor, float value) {
  for (size_t at = 0; at + sizeof value <= tensor.bytes.size(); at += sizeof value) {
    std::memcpy(tensor.bytes.data() + at, &value, sizeof value);
  }
}

/// A safetensors file with any header text, true or not.
inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file.append(header).append(data);
}

inline std::string safetensors_bytes(const StoredTensors& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return safetensors_bytes(header.dump(), data);
}

/// A model directory: config.json and model.safetensors.
struct ModelFiles {
  Json config;
  StoredTensors tensors;

  /// What `shape` describes, with weights that are numbers but mean nothing.
  static ModelFiles of(const ModelConfig& shape, int seed) {
    ModelFiles files{Json::parse(to_config_json(shape)), {}};
    const StoredForm& form = family_of(shape).checkpoint;
    for (const LayoutEntry& entry : tensor_layout(shape, form, form)) {
      files.tensors[entry.name] = some_numbers(entry.shape(), ++seed);
    }
    return files;
  }

  void write(const TemporaryDirectory& root, const std::filesystem::path& relative = {}) const {
    root.write(relative / "config.json", config.dump());
    root.write(relative / "model.safetensors", safetensors_bytes(tensors));
  }
};

/// A base of two layers; 400 words, as many as tests/data/tokenizer.model has; context 32 tokens.
inline ModelConfig tiny_base_shape() {
  ModelConfig shape;
  shape.vocab_size = 400;
  shape.model_dim = 16;
  shape.head_dim = 8;
  shape.max_context_tokens = 32;
  shape.layers = {{2, 1, 16}, {4, 2, 32}};
  return shape;
}

inline ModelConfig tiny_auxiliary_shape() {
  ModelConfig shape = tiny_base_shape();
  shape.model_dim = 8;
  shape.layers = {{1, 1, 8}, {2, 1, 8}};
  return shape;
}

/// A bundle whose base layers both read auxiliary layer 0 and 1 in order.
struct BundleFiles {
  ModelFiles base = ModelFiles::of(tiny_base_shape(), 0);
  ModelFiles auxiliary = ModelFiles::of(tiny_auxiliary_shape(), 100);
  StoredTensors predictor;
  Json manifest = {{"format", 1},
                   {"base", "base"},
                   {"auxiliary", "auxiliary"},
                   {"predictor", "predictor.safetensors"},
                   {"layer_map", {0, 1}}};

  BundleFiles() {
    const ModelConfig to = tiny_base_shape(), from = tiny_auxiliary_shape();
    int seed = 200;
    for (int64_t i = 0; i < to.n_layers(); ++i) {
      for (const char* kind : {"key", "value"}) {
        const std::string name = std::string(kind) + "_transforms." + std::to_string(i) + ".";
        predictor[name + "weight"] = some_numbers({to.kv_width(i), from.kv_width(i)}, ++seed);
        predictor[name + "bias"] = some_numbers({to.kv_width(i)}, ++seed);
      }
    }
  }

  void write(const TemporaryDirectory& root) const {
    base.write(root, "base");
    auxiliary.write(root, "auxiliary");
    root.write("predictor.safetensors", safetensors_bytes(predictor));
    root.write("kvcast.json", manifest.dump());
  }
};

inline const std::filesystem::path kTestTokenizer =
    std::filesystem::path(KVCAST_SOURCE_DIR) / "tests" / "data" / "tokenizer.model";

}  // namespace kvcast

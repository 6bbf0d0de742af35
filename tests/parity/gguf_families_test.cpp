// The golden models of each family, written as GGUF files, compute what their directories do.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "io/json.h"
#include "model/checkpoint.h"
#include "model/family.h"
#include "prefill/strategy.h"
#include "runtime/convert.h"
#include "support/gguf_bytes.h"
#include "support/temporary_directory.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

namespace fs = std::filesystem;

std::vector<float> logits(const fs::path& model, const char* spec = "exact") {
  const auto models = load_models(model, WeightType::kF32, 2);
  EXPECT_TRUE(models) << models.error().message;
  if (!models) return {};
  Sequence sequence(*models);
  for (int32_t i = 0; i < 20; ++i) sequence.tokens.push_back((i * 37 + 11) % 96);
  Sequence* const batch[] = {&sequence};
  std::vector<float> out(static_cast<size_t>(models->base->config().vocab_size));
  PrefillWorkspace workspace;
  (*PrefillStrategy::parse(spec))->prefill(*models, batch, out.data(), workspace, {});
  return out;
}

/// Llama's heads as GGUF has them: what RoPE turns together lies side by side.
std::vector<float> with_interleaved_heads(const std::vector<float>& rows, int64_t width,
                                          int64_t head_dim) {
  std::vector<float> out(rows.size());
  const int64_t half = head_dim / 2, heads = std::ssize(rows) / (width * head_dim);
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t pair = 0; pair < half; ++pair) {
      for (int64_t side = 0; side < 2; ++side) {
        const auto* const from = rows.data() + (head * head_dim + side * half + pair) * width;
        std::copy_n(from, width, out.data() + (head * head_dim + 2 * pair + side) * width);
      }
    }
  }
  return out;
}

std::string whole(const std::string& key, int64_t value) {
  return gguf_pair(key, GgufType::kU32, little_endian(static_cast<uint32_t>(value)));
}
std::string real(const std::string& key, float value) {
  return gguf_pair(key, GgufType::kF32, little_endian(value));
}

/// A directory's model as a GGUF file in F32.
class GgufCopy {
 public:
  explicit GgufCopy(const Checkpoint& model) : model_(model), family_(family_of(model.config)) {
    const ModelConfig& config = model.config;
    const std::string architecture(family_.gguf_architecture), a = architecture + ".";
    file_.pairs = {
        gguf_pair("general.architecture", GgufType::kString, gguf_string(architecture)),
        whole(a + "block_count", config.n_layers()),
        whole(a + "embedding_length", config.model_dim),
        whole(a + "feed_forward_length", config.layers[0].ffn_dim),
        whole(a + "attention.head_count", config.layers[0].query_heads),
        whole(a + "attention.head_count_kv", config.layers[0].kv_heads),
        whole(a + "attention.key_length", config.head_dim),
        whole(a + "context_length", config.max_context_tokens),
        real(a + "attention.layer_norm_rms_epsilon", config.norm_eps),
        real(a + "rope.freq_base", config.rope.theta),
    };
    for (const int64_t token : config.eos_tokens) {
      const bool first = token == config.eos_tokens.front();
      file_.pairs.push_back(
          whole(first ? "tokenizer.ggml.eos_token_id" : "tokenizer.ggml.eot_token_id", token));
    }
    for (const auto& entry : tensor_layout(config, {family_.gguf.names}, model.form)) add(entry);
    if (!config.rope.factors.empty()) {
      add("rope_freqs.weight", {static_cast<int64_t>(config.rope.factors.size())},
          config.rope.factors);
    }
  }

  [[nodiscard]] std::string str() const { return file_.str(); }

 private:
  void add(const LayoutEntry& entry) {
    auto values = float_values(*model_.weights, entry.parts.front().name);
    const bool turned = entry.role == Role::kQuery || entry.role == Role::kKey;
    if (turned && family_.gguf.interleaved_heads) {
      values = with_interleaved_heads(values, entry.columns, model_.config.head_dim);
    }
    add(entry.name, entry.shape(), values);
  }

  void add(const std::string& name, const std::vector<int64_t>& shape,
           const std::vector<float>& values) {
    constexpr uint32_t kF32 = 0;
    const std::vector<uint64_t> dimensions(shape.rbegin(), shape.rend());
    file_.tensors.push_back(gguf_tensor(name, dimensions, kF32, file_.data.size()));
    const auto* const bytes = reinterpret_cast<const char*>(values.data());
    file_.data.append(bytes, values.size() * sizeof(float));
    file_.data.resize((file_.data.size() + 31) / 32 * 32);
  }

  const Checkpoint& model_;
  const ModelFamily& family_;
  GgufBytes file_;
};

class GgufFamily : public testing::TestWithParam<const char*> {};

TEST_P(GgufFamily, AFileAndItsPackedCopyComputeWhatTheDirectoryDoes) {
  const fs::path directory = fs::path(KVCAST_GOLDEN_DIR) / "families" / GetParam();
  const auto model = open_checkpoint(directory);
  ASSERT_TRUE(model) << model.error().message;
  const TemporaryDirectory root;
  root.write("model.gguf", GgufCopy(*model).str());
  const fs::path file = root.path() / "model.gguf", packed = root.path() / "packed";

  const auto opened = open_checkpoint(file);
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->config.layers, model->config.layers);
  EXPECT_EQ(opened->config.eos_tokens, model->config.eos_tokens);
  EXPECT_EQ(opened->config.tied_embeddings, model->config.tied_embeddings);
  const auto expected = logits(directory);
  EXPECT_LT(relative_to_largest(logits(file), expected), 1e-6);

  const auto status = convert({.source = file, .output = packed});
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_LT(relative_to_largest(logits(packed), expected), 1e-6);
  const auto kept = Gguf::open(packed / "tokenizer.gguf");  // where the vocabulary would be
  ASSERT_TRUE(kept) << kept.error().message;
  EXPECT_TRUE((*kept)->tensors().empty());
  EXPECT_EQ(*(*kept)->values().text("general.architecture"),
            family_of(model->config).gguf_architecture);
}

INSTANTIATE_TEST_SUITE_P(Golden, GgufFamily, testing::Values("llama", "llama3", "qwen2", "qwen3"),
                         [](const auto& family) { return std::string(family.param); });

TEST(GgufModel, WhatIsNotSupportedIsNamedByTheFilesOwnKeys) {
  const TemporaryDirectory root;
  const auto model = *open_checkpoint(fs::path(KVCAST_GOLDEN_DIR) / "families" / "llama");
  const std::string good = GgufCopy(model).str();
  const auto error_with = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    bad.replace(bad.find(from), from.size(), to);
    root.write("bad.gguf", bad);
    const auto opened = open_checkpoint(root.path() / "bad.gguf");
    return opened ? "" : opened.error().message;
  };
  EXPECT_NE(error_with(gguf_string("llama"), gguf_string("bloom")).find("\"bloom\""),
            std::string::npos);
  const std::string heads = "llama.attention.head_count_kv";
  EXPECT_NE(error_with(whole(heads, 2), whole(heads, 3)).find(heads), std::string::npos);
}

TEST(GgufBundle, AModelThatIsShippedApartIsFoundAndStaysNamedWhenTheBundleIsConverted) {
  const fs::path golden = fs::path(KVCAST_GOLDEN_DIR) / "qwen2-llama-kvp";
  for (const std::string key : {"base", "auxiliary"}) {
    const TemporaryDirectory root;
    const fs::path bundle = root.path() / "bundle", packed = root.path() / "packed";
    const std::string other = key == "base" ? "auxiliary" : "base";
    const std::string bytes = GgufCopy(*open_checkpoint(golden / key)).str();
    Json manifest = *read_json_object(golden / "kvcast.json");
    manifest[key] = {{"file", "model.gguf"}, {"bytes", bytes.size()}, {"sha256", "0a"}};
    root.write("hub/model.gguf", bytes);
    root.write("bundle/kvcast.json", manifest.dump());
    fs::copy(golden / other, bundle / other);
    fs::copy_file(golden / "predictor.safetensors", bundle / "predictor.safetensors");
    const auto status = convert({.source = bundle, .output = packed});
    ASSERT_TRUE(status) << status.error().message;
    EXPECT_EQ(*read_json_object(packed / "kvcast.json"), manifest);
    EXPECT_FALSE(fs::exists(packed / key));
    EXPECT_TRUE(fs::exists(packed / other));
    for (const char* spec : {"exact", "auxiliary", "kv-prediction:mix=0.5"}) {
      const auto expected = logits(golden, spec);
      EXPECT_LT(relative_to_largest(logits(bundle, spec), expected), 1e-6) << key << " " << spec;
      EXPECT_LT(relative_to_largest(logits(packed, spec), expected), 1e-6) << key << " " << spec;
    }
  }
}

}  // namespace
}  // namespace kvcast

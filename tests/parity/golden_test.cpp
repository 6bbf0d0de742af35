// The runtime against numbers that the paper authors' own code computed on a tiny bundle with
// random weights (tests/golden/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "prefill/strategy.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

constexpr int kThreads = 2;

class Golden : public testing::Test {
 protected:
  void SetUp() override {
    auto expected = Safetensors::open(kBundle / "expected.safetensors");
    ASSERT_TRUE(expected) << expected.error().message;
    expected_ = std::move(*expected);
    input_ids_ = int_tensor("input_ids");
    batch_ = shape("input_ids")[0];
    tokens_ = shape("input_ids")[1];
    vocab_ = shape("exact/logits")[2];
  }

  Models load(WeightType type) {
    auto models = load_models(kBundle, type, kThreads);
    EXPECT_TRUE(models) << models.error().message;
    return std::move(*models);
  }

  std::vector<int64_t> shape(const std::string& name) { return expected_->find(name)->shape; }
  std::vector<float> tensor(const std::string& name) { return float_values(*expected_, name); }
  std::vector<int64_t> int_tensor(const std::string& name) { return int_values(*expected_, name); }

  std::vector<int32_t> prompt(int64_t b) {
    return {input_ids_.begin() + b * tokens_, input_ids_.begin() + (b + 1) * tokens_};
  }

  /// Logits at every position of every sequence: [B, T, V].
  std::vector<float> all_logits(const Transformer& model) {
    std::vector<float> out(static_cast<size_t>(batch_ * tokens_ * vocab_));
    for (int64_t b = 0; b < batch_; ++b) {
      KVCache cache(model.config());
      cache.reserve(tokens_);
      Workspace workspace;
      std::vector<float> rows(static_cast<size_t>(tokens_ * model.config().model_dim));
      model.embed(prompt(b), rows.data());
      const SequenceRows sequence{&cache, tokens_};
      EXPECT_TRUE(model.run_layers(rows.data(), {&sequence, 1}, {.last = model.config().n_layers()},
                                   workspace));
      model.logits(rows.data(), tokens_, out.data() + b * tokens_ * vocab_, workspace);
    }
    return out;
  }

  /// Greedy decoding of the whole batch at once; keeps the logits of each step, [step][B * V].
  struct Greedy {
    std::vector<std::vector<int64_t>> tokens;  // [B][steps + 1]
    std::vector<std::vector<float>> logits;    // [steps + 1][B * V]
    std::vector<Sequence> sequences;           // as after the prompt
  };
  Greedy greedy(const Models& models, const std::string& spec, int steps) {
    Greedy result;
    std::vector<Sequence> sequences;
    for (int64_t b = 0; b < batch_; ++b) {
      sequences.emplace_back(models);
      sequences.back().tokens = prompt(b);
    }
    std::vector<Sequence*> pointers;
    for (Sequence& sequence : sequences) pointers.push_back(&sequence);
    auto strategy = PrefillStrategy::parse(spec);
    EXPECT_TRUE(strategy);
    PrefillWorkspace workspace;
    std::vector<float> logits(static_cast<size_t>(batch_ * vocab_));
    result.tokens.resize(static_cast<size_t>(batch_));
    (*strategy)->prefill(models, pointers, logits.data(), workspace, {});
    for (const Sequence& sequence : sequences) {
      Sequence copy(models);
      copy.base = sequence.base.clone();
      result.sequences.push_back(std::move(copy));
    }
    for (int step = 0;; ++step) {
      result.logits.push_back(logits);
      for (int64_t b = 0; b < batch_; ++b) {
        const auto row = logits.begin() + b * vocab_;
        const auto token = std::max_element(row, row + vocab_) - row;
        result.tokens[b].push_back(token);
        sequences[b].tokens.push_back(static_cast<int32_t>(token));
      }
      if (step == steps) return result;
      decode_step(models, pointers, logits.data(), workspace);
    }
  }

  static inline const std::filesystem::path kBundle =
      std::filesystem::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";
  std::unique_ptr<Safetensors> expected_;
  std::vector<int64_t> input_ids_;
  int64_t batch_ = 0, tokens_ = 0, vocab_ = 0;
};

TEST_F(Golden, ExactLogitsMatchAtEveryPosition) {
  const Models models = load(WeightType::kF32);
  EXPECT_LT(relative_to_largest(all_logits(*models.base), tensor("exact/logits")), 2e-4);
}

TEST_F(Golden, AuxiliaryLogitsMatchAtEveryPosition) {
  const Models models = load(WeightType::kF32);
  EXPECT_LT(relative_to_largest(all_logits(*models.auxiliary), tensor("auxiliary/logits")), 2e-4);
}

TEST_F(Golden, ExactGreedyTokensAreEqual) {
  const Models models = load(WeightType::kF32);
  const auto result = greedy(models, "exact", 6);
  const auto expected = int_tensor("exact/greedy_tokens");
  for (int64_t b = 0; b < batch_; ++b) {
    EXPECT_EQ(result.tokens[b],
              std::vector<int64_t>(expected.begin() + b * 7, expected.begin() + (b + 1) * 7));
  }
}

TEST_F(Golden, AuxiliaryRawKeysAndValuesMatch) {
  const Models models = load(WeightType::kF32);
  const Transformer& auxiliary = *models.auxiliary;
  for (int64_t b = 0; b < batch_; ++b) {
    KVCache cache(auxiliary.config());
    cache.reserve(tokens_);
    Workspace workspace;
    std::vector<float> rows(static_cast<size_t>(tokens_ * auxiliary.config().model_dim));
    auxiliary.embed(prompt(b), rows.data());
    const SequenceRows sequence{&cache, tokens_};
    RunLayersOptions options{.last = auxiliary.config().n_layers(),
                             .output = LastLayerOutput::kNothing};
    int64_t layers_seen = 0;
    options.on_raw_key_values = [&](const RawKeyValues& raw) {
      ++layers_seen;
      const int64_t heads = auxiliary.config().layers[raw.layer].kv_heads;
      const int64_t head_dim = auxiliary.config().head_dim;
      for (const auto& [kind, data] :
           {std::pair{"key_prenorm", raw.keys}, std::pair{"value", raw.values}}) {
        const auto expected =
            tensor("auxiliary/" + std::string(kind) + "." + std::to_string(raw.layer));
        const auto actual = heads_first(data, heads, tokens_, head_dim);
        const auto size = static_cast<int64_t>(actual.size());
        EXPECT_LT(largest_difference(
                      actual, {expected.begin() + b * size, expected.begin() + (b + 1) * size}),
                  1e-4)
            << kind << " of layer " << raw.layer;
      }
    };
    EXPECT_TRUE(auxiliary.run_layers(rows.data(), {&sequence, 1}, options, workspace));
    EXPECT_EQ(layers_seen, auxiliary.config().n_layers());
  }
}

TEST_F(Golden, PredictionMatchesLogitsTokensAndCache) {
  const Models models = load(WeightType::kF32);
  const auto result = greedy(models, "kv-prediction", 6);
  EXPECT_LT(relative_to_largest(result.logits[0], tensor("infer/prompt_last_logits")), 2e-4);

  const auto step_logits = tensor("infer/step_logits");  // [B, 6, V]
  for (int step = 0; step < 6; ++step) {
    for (int64_t b = 0; b < batch_; ++b) {
      const auto from = step_logits.begin() + (b * 6 + step) * vocab_;
      const auto row = result.logits[step + 1].begin() + b * vocab_;
      EXPECT_LT(relative_to_largest({row, row + vocab_}, {from, from + vocab_}), 2e-4)
          << "step " << step << " sequence " << b;
    }
  }
  const auto expected_tokens = int_tensor("infer/greedy_tokens");
  for (int64_t b = 0; b < batch_; ++b) {
    EXPECT_EQ(result.tokens[b], std::vector<int64_t>(expected_tokens.begin() + b * 7,
                                                     expected_tokens.begin() + (b + 1) * 7));
  }
}

TEST_F(Golden, PredictedCacheMatchesInEveryLayer) {
  const Models models = load(WeightType::kF32);
  const auto result = greedy(models, "kv-prediction", 0);
  const ModelConfig& config = models.base->config();
  for (int64_t layer = 0; layer < config.n_layers(); ++layer) {
    const auto suffix = "." + std::to_string(layer);
    const auto keys = tensor("infer/cache_after_prompt/key" + suffix);
    const auto values = tensor("infer/cache_after_prompt/value" + suffix);
    for (int64_t b = 0; b < batch_; ++b) {
      const KVCache& cache = result.sequences[b].base;
      ASSERT_EQ(cache.rows(layer), tokens_);
      const auto actual_keys = keys_without_rope(cache, layer, *models.base);
      const auto actual_values = cached_values(cache, layer);
      const auto size = static_cast<int64_t>(actual_keys.size());
      EXPECT_LT(
          largest_difference(actual_keys, {keys.begin() + b * size, keys.begin() + (b + 1) * size}),
          1e-4)
          << "keys of layer " << layer;
      EXPECT_LT(largest_difference(actual_values,
                                   {values.begin() + b * size, values.begin() + (b + 1) * size}),
                1e-4)
          << "values of layer " << layer;
    }
  }
}

// bf16 keeps 8 bits of mantissa in weights and activations. On these random weights (logits far
// larger than a trained model's) that leaves a few per cent of the largest logit.
TEST_F(Golden, Bf16StaysWithinFivePerCentOfTheLargestLogit) {
  const Models models = load(WeightType::kBf16);
  EXPECT_LT(relative_to_largest(all_logits(*models.base), tensor("exact/logits")), 5e-2);
  const auto result = greedy(models, "kv-prediction", 0);
  EXPECT_LT(relative_to_largest(result.logits[0], tensor("infer/prompt_last_logits")), 5e-2);
}

}  // namespace
}  // namespace kvcast

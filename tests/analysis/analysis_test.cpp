// kvcast analyze: its numbers against plain loops over the golden bundle's caches, and against
// cases that can be worked out on paper.
#include "analysis/analysis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/mapped_file.h"
#include "io/json.h"
#include "kvcast/model.h"
#include "support/bundle_files.h"
#include "support/identity_bundle.h"
#include "support/tensors.h"

namespace kvcast::analysis {
namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<int32_t>;

const fs::path kGolden = fs::path(KVCAST_GOLDEN_DIR) / "openelm-tiny-kvp-c";

Models load(const fs::path& bundle) {
  auto models = load_models(bundle, WeightType::kF32, 2);
  EXPECT_TRUE(models) << models.error().message;
  return std::move(*models);
}

Analysis analyze(const Models& models, const std::vector<Tokens>& windows, size_t batch = 8) {
  CacheAnalyzer analyzer(models, {.window_tokens = static_cast<int64_t>(windows.front().size())});
  for (size_t at = 0; at < windows.size(); at += batch) {
    EXPECT_TRUE(
        analyzer.add(std::span(windows).subspan(at, std::min(batch, windows.size() - at)), {}));
  }
  return analyzer.result();
}

// ---- the plain twin ----

/// Causal attention of one query head over one KV head, double precision, [tokens, head_dim].
std::vector<double> plain_attention(const std::vector<double>& queries,
                                    const std::vector<double>& keys,
                                    const std::vector<double>& values, int64_t tokens,
                                    int64_t head_dim) {
  std::vector<double> out(static_cast<size_t>(tokens * head_dim));
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> weights;
    double total = 0;
    for (int64_t s = 0; s <= t; ++s) {
      double score = 0;
      for (int64_t c = 0; c < head_dim; ++c) {
        score += queries[t * head_dim + c] * keys[s * head_dim + c];
      }
      weights.push_back(std::exp(score / std::sqrt(static_cast<double>(head_dim))));
      total += weights.back();
    }
    for (int64_t s = 0; s <= t; ++s) {
      for (int64_t c = 0; c < head_dim; ++c) {
        out[t * head_dim + c] += weights[s] / total * values[s * head_dim + c];
      }
    }
  }
  return out;
}

/// RoPE in its half-split form, from its definition.
std::vector<double> rotated(const float* keys, int64_t tokens, int64_t head_dim) {
  std::vector<double> out(static_cast<size_t>(tokens * head_dim));
  const int64_t half = head_dim / 2;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < half; ++j) {
      const double angle =
          static_cast<double>(t) *
          std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
      const double a = keys[t * head_dim + j], b = keys[t * head_dim + j + half];
      out[t * head_dim + j] = a * std::cos(angle) - b * std::sin(angle);
      out[t * head_dim + j + half] = b * std::cos(angle) + a * std::sin(angle);
    }
  }
  return out;
}

class GoldenAnalysis : public testing::Test {
 protected:
  void SetUp() override {
    expected_ = std::move(*Safetensors::open(kGolden / "expected.safetensors"));
    const auto ids = int_values(*expected_, "input_ids");
    tokens_ = static_cast<int64_t>(ids.size()) / 2;
    for (const int64_t b : {0, 1}) {
      windows_.emplace_back(ids.begin() + b * tokens_, ids.begin() + (b + 1) * tokens_);
    }
  }

  std::vector<float> tensor(const std::string& name, int64_t layer) {
    return float_values(*expected_, "train/" + name + "." + std::to_string(layer));
  }

  /// Mean |a - b| of [B, heads, T, head_dim] at one position, or (-1) at all.
  double mean_l1(const std::vector<float>& a, const std::vector<float>& b, int64_t position) const {
    constexpr int64_t kHeadDim = 16;
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(a.size()); ++i) {
      if (position >= 0 && i / kHeadDim % tokens_ != position) continue;
      sum += std::abs(double{a[i]} - double{b[i]});
      ++count;
    }
    return sum / static_cast<double>(count);
  }

  std::unique_ptr<Safetensors> expected_;
  int64_t tokens_ = 0;
  std::vector<Tokens> windows_;
};

TEST_F(GoldenAnalysis, ErrorsMatchPlainLoopsOverTheAuthorsCaches) {
  const Models models = load(kGolden);
  const Analysis analysis = analyze(models, windows_);
  ASSERT_EQ(analysis.layers.size(), 5);
  EXPECT_EQ(analysis.windows, 2);
  for (int64_t i = 0; i < 5; ++i) {
    const auto predicted_keys = tensor("predicted_key_normed", i);
    const auto exact_keys = tensor("target_key_normed", i);
    const auto predicted_values = tensor("predicted_value", i);
    const auto exact_values = tensor("target_value", i);
    const LayerAnalysis& layer = analysis.layers[i];
    EXPECT_NEAR(layer.keys.l1.value, mean_l1(predicted_keys, exact_keys, -1), 1e-5) << i;
    EXPECT_NEAR(layer.values.l1.value, mean_l1(predicted_values, exact_values, -1), 1e-5) << i;
    const std::vector<float> zeros(exact_values.size());
    EXPECT_NEAR(layer.values.relative_l1,
                mean_l1(predicted_values, exact_values, -1) / mean_l1(exact_values, zeros, -1),
                1e-4);
    ASSERT_EQ(layer.keys.l1_by_position.size(), tokens_);
    for (int64_t t = 0; t < tokens_; ++t) {
      EXPECT_NEAR(layer.keys.l1_by_position[t], mean_l1(predicted_keys, exact_keys, t), 1e-5);
      EXPECT_NEAR(layer.values.l1_by_position[t], mean_l1(predicted_values, exact_values, t), 1e-5);
    }
    double mean = 0, squares = 0;
    for (size_t k = 0; k < exact_values.size(); ++k) {
      const double difference = double{predicted_values[k]} - double{exact_values[k]};
      mean += difference / static_cast<double>(exact_values.size());
      squares += difference * difference / static_cast<double>(exact_values.size());
    }
    EXPECT_NEAR(layer.values.mean, mean, 1e-5);
    EXPECT_NEAR(layer.values.standard_deviation, std::sqrt(squares - mean * mean), 1e-5);
  }
}

TEST_F(GoldenAnalysis, AttentionCosinesMatchPlainAttentionOverTheAuthorsCaches) {
  const Models models = load(kGolden);
  const ModelConfig& config = models.base->config();
  const Analysis analysis = analyze(models, windows_);
  std::map<int64_t, std::array<double, 3>> cosines;  // layer -> sums over rows
  for (int64_t b = 0; b < 2; ++b) {
    KVCache cache(config);
    cache.reserve(tokens_);
    Workspace workspace;
    std::vector<float> rows(static_cast<size_t>(tokens_ * config.model_dim));
    models.base->embed(windows_[b], rows.data());
    RunLayersOptions options;
    options.last = config.n_layers();
    options.on_attention = [&](const LayerAttention& attention) {
      const int64_t i = attention.layer, width = config.query_width(i), d = config.head_dim;
      const int64_t heads = config.layers[i].query_heads, kv_heads = config.layers[i].kv_heads;
      const auto head = [&](const std::vector<float>& all, int64_t kv_head) {
        return all.data() + (b * kv_heads + kv_head) * tokens_ * d;
      };
      const auto key =
          std::array{tensor("target_key_normed", i), tensor("predicted_key_normed", i)};
      const auto value = std::array{tensor("target_value", i), tensor("predicted_value", i)};
      std::array<std::vector<double>, 4> out;  // exact; both, keys, values predicted
      for (int variant = 0; variant < 4; ++variant) {
        const bool predicted_keys = variant == 1 || variant == 2;
        const bool predicted_values = variant == 1 || variant == 3;
        out[variant].resize(static_cast<size_t>(tokens_ * width));
        for (int64_t h = 0; h < heads; ++h) {
          const int64_t kv_head = h / (heads / kv_heads);
          std::vector<double> queries;
          for (int64_t t = 0; t < tokens_; ++t) {
            const float* from = attention.queries + t * width + h * d;
            queries.insert(queries.end(), from, from + d);
          }
          const float* v = head(value[predicted_values], kv_head);
          const auto result =
              plain_attention(queries, rotated(head(key[predicted_keys], kv_head), tokens_, d),
                              {v, v + tokens_ * d}, tokens_, d);
          for (int64_t t = 0; t < tokens_; ++t) {
            for (int64_t c = 0; c < d; ++c) out[variant][t * width + h * d + c] = result[t * d + c];
          }
        }
      }
      for (int64_t t = 0; t < tokens_; ++t) {
        for (int variant = 1; variant < 4; ++variant) {
          double ab = 0, aa = 0, bb = 0;
          for (int64_t c = t * width; c < (t + 1) * width; ++c) {
            ab += out[0][c] * out[variant][c];
            aa += out[0][c] * out[0][c];
            bb += out[variant][c] * out[variant][c];
          }
          cosines[i][variant - 1] += ab / std::sqrt(aa * bb) / static_cast<double>(2 * tokens_);
        }
      }
    };
    const SequenceRows sequence{&cache, tokens_};
    ASSERT_TRUE(models.base->run_layers(rows.data(), {&sequence, 1}, options, workspace));
  }
  ASSERT_EQ(cosines.size(), 5);
  for (const auto& [i, expected] : cosines) {
    EXPECT_NEAR(analysis.layers[i].attention_cosine.value, expected[0], 1e-4) << i;
    EXPECT_NEAR(analysis.layers[i].attention_cosine_keys.value, expected[1], 1e-4) << i;
    EXPECT_NEAR(analysis.layers[i].attention_cosine_values.value, expected[2], 1e-4) << i;
    EXPECT_LT(std::abs(expected[0]), 0.99);  // random weights: there is something to see
  }
}

TEST_F(GoldenAnalysis, DoesNotDependOnTheBatch) {
  const Models models = load(kGolden);
  const Analysis together = analyze(models, windows_, 2), apart = analyze(models, windows_, 1);
  for (size_t i = 0; i < together.layers.size(); ++i) {
    EXPECT_NEAR(together.layers[i].keys.l1.value, apart.layers[i].keys.l1.value, 1e-9);
    EXPECT_NEAR(together.layers[i].values.l1.high, apart.layers[i].values.l1.high, 1e-9);
    EXPECT_NEAR(together.layers[i].attention_cosine.value, apart.layers[i].attention_cosine.value,
                1e-9);
  }
}

TEST_F(GoldenAnalysis, DensityCountsEveryDifferenceOnce) {
  const Models models = load(kGolden);
  const Analysis analysis = analyze(models, windows_);
  EXPECT_EQ(analysis.density_layers, std::vector<int64_t>{3});
  const Density& density = analysis.layers[3].values.density;
  int64_t total = density.below + density.above;
  for (const int64_t count : density.counts) total += count;
  EXPECT_EQ(total, static_cast<int64_t>(tensor("target_value", 3).size()));
  EXPECT_TRUE(analysis.layers[2].values.density.counts.empty());
}

// ---- what can be worked out on paper ----

const std::vector<Tokens> kWindows = {{5, 17, 3, 40, 41, 42, 9, 80}, {1, 2, 33, 64, 7, 7, 90, 11}};

TEST(Analysis, OfAnIdentityPredictorIsZeroErrorAndCosineOne) {
  const IdentityBundle bundle;
  const Analysis analysis = analyze(load(bundle.path()), kWindows);
  for (const LayerAnalysis& layer : analysis.layers) {
    EXPECT_LT(layer.keys.l1.value, 1e-5);
    EXPECT_LT(layer.values.l1.value, 1e-5);
    EXPECT_NEAR(layer.attention_cosine.value, 1, 1e-6);
    EXPECT_NEAR(layer.attention_cosine_by_position.back(), 1, 1e-6);
  }
}

TEST(Analysis, OfValuesThatAreShiftedShowsTheShift) {
  const IdentityBundle bundle(0.25F);
  const Analysis analysis = analyze(load(bundle.path()), kWindows);
  for (const LayerAnalysis& layer : analysis.layers) {
    EXPECT_LT(layer.keys.l1.value, 1e-5);
    EXPECT_NEAR(layer.values.l1.value, 0.25, 1e-5);
    EXPECT_NEAR(layer.values.mean, 0.25, 1e-5);
    EXPECT_LT(layer.values.standard_deviation, 1e-4);
    EXPECT_NEAR(layer.values.l1_by_position.front(), 0.25, 1e-5);
    EXPECT_NEAR(layer.attention_cosine_keys.value, 1, 1e-6);
    EXPECT_LT(layer.attention_cosine_values.value, 0.9999);
    EXPECT_NEAR(layer.attention_cosine.value, layer.attention_cosine_values.value, 1e-5);
  }
}

TEST(Analysis, StoppedAddsNothing) {
  const IdentityBundle bundle;
  const Models models = load(bundle.path());
  CacheAnalyzer analyzer(models, {.window_tokens = 8});
  std::stop_source source;
  source.request_stop();
  EXPECT_FALSE(analyzer.add(kWindows, source.get_token()));
  EXPECT_EQ(analyzer.result().windows, 0);
}

TEST(Analysis, DepthTrendIsTheLastQuarterOverTheFirst) {
  EXPECT_DOUBLE_EQ(depth_trend({1, 1, 5, 5, 5, 5, 3, 5}), 4);
  EXPECT_DOUBLE_EQ(depth_trend({2, 3}), 1.5);
  EXPECT_TRUE(std::isnan(depth_trend({})));
}

TEST(Analysis, DensityLayersAreThePapers) {
  EXPECT_EQ(density_layers(12), (std::vector<int64_t>{3, 7, 11}));
  EXPECT_EQ(density_layers(3), (std::vector<int64_t>{2}));
}

TEST(Statistics, IntervalsAreStudents) {
  RunningMoments numbers;
  for (const double x : {1.0, 2.0, 3.0, 4.0, 5.0}) numbers.add(x);
  const Estimate estimate = estimate_of(numbers);
  EXPECT_DOUBLE_EQ(estimate.value, 3);
  EXPECT_NEAR(estimate.high - 3, 2.776 * std::sqrt(2.5 / 5), 0.04);  // t(4) = 2.776
  EXPECT_NEAR(student_t_975(30), 2.042, 0.002);
  RunningMoments front, back;
  for (const double x : {1.0, 2.0}) front.add(x);
  for (const double x : {3.0, 4.0, 5.0}) back.add(x);
  front.add(back);
  EXPECT_DOUBLE_EQ(front.mean(), 3);
  EXPECT_NEAR(front.standard_deviation(), numbers.standard_deviation(), 1e-12);
}

// ---- files ----

TEST(AnalysisFile, HoldsWhatWasMeasured) {
  const IdentityBundle bundle(0.25F);
  Analysis analysis = analyze(load(bundle.path()), kWindows);
  analysis.label = "a \"label\"";
  const Json file = *parse_json(to_json(analysis), "x");
  EXPECT_EQ(file["kind"], "kvcast-analysis");
  EXPECT_EQ(file["format"], 1);
  EXPECT_EQ(file["model"]["label"], "a \"label\"");
  EXPECT_EQ(file["windows"], kWindows.size());
  ASSERT_EQ(file["layers"].size(), analysis.layers.size());
  const size_t bins = file["position_edges"].size() - 1;
  for (size_t i = 0; i < analysis.layers.size(); ++i) {
    const Json& values = file["layers"][i]["values"];
    const CacheErrors& measured = analysis.layers[i].values;
    EXPECT_NEAR(values["l1"]["value"], measured.l1.value, 1e-4 * measured.l1.value);
    EXPECT_NEAR(values["l1"]["low"], measured.l1.low, 1e-4 * measured.l1.value);
    EXPECT_EQ(values["l1_by_position"].size(), bins);
    EXPECT_EQ(values.contains("density"), !measured.density.counts.empty());
  }
}

TEST(AnalysisFile, OfOneWindowHasNoIntervals) {
  const IdentityBundle bundle;
  const Json file = *parse_json(to_json(analyze(load(bundle.path()), {kWindows[0]})), "x");
  EXPECT_TRUE(file["layers"][0]["keys"]["l1"]["low"].is_null());
  EXPECT_TRUE(file["layers"][0]["keys"]["l1"]["value"].is_number());
}

}  // namespace
}  // namespace kvcast::analysis

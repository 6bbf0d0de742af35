// The closed-form predictor and the layer map chosen by it.
#include "train/ridge.h"

#include <gtest/gtest.h>

#include "small_models.h"

namespace kvcast::train {
namespace {

/// A cache of one model whose rows are random.
Cache random_cache(const ModelConfig& config, int64_t batch, int64_t tokens) {
  Cache cache;
  for (int64_t i = 0; i < config.n_layers(); ++i) {
    const std::vector<int64_t> shape = {batch, tokens, config.layers[i].kv_heads, config.head_dim};
    const Tensor key = at::randn(shape) + 0.5;
    cache.push_back({key, key, at::randn(shape) - 0.3});
  }
  return cache;
}

Tensor rows(const Tensor& x) { return x.flatten(2).flatten(0, 1).to(at::kDouble); }

TEST(Ridge, EqualsTheSolutionOfTheNormalEquationsWithBias) {
  const ModelConfig base = small_config(3), auxiliary = small_config(2, 24);
  const std::vector<int64_t> map = {0, 1, 1};
  RidgeSums sums(base, auxiliary, at::kCPU);
  Tensor x, y;
  for (int part = 0; part < 3; ++part) {
    const Cache from = random_cache(auxiliary, 2, 20), to = random_cache(base, 2, 20);
    sums.add(to, from);
    const Tensor more_x = rows(from[1].value), more_y = rows(to[2].value);
    x = x.defined() ? at::cat({x, more_x}) : more_x;
    y = y.defined() ? at::cat({y, more_y}) : more_y;
  }
  ASSERT_EQ(sums.rows(), 120);
  const double regularisation = 0.01;
  const TensorMap fitted = RidgeFit(sums, regularisation).predictor(map);
  // The plain form: centre, add the ridge, solve.
  const Tensor xc = x - x.mean(0), yc = y - y.mean(0);
  const Tensor covariance = at::matmul(xc.t(), xc) / 120.0;
  const Tensor ridge =
      regularisation * covariance.diagonal().mean() * at::eye(x.size(1), at::kDouble);
  const Tensor w = at::linalg_solve(covariance + ridge, at::matmul(xc.t(), yc) / 120.0);
  EXPECT_LT(difference(fitted.at("value_transforms.2.weight").to(at::kDouble), w.t()), 1e-6);
  EXPECT_LT(difference(fitted.at("value_transforms.2.bias").to(at::kDouble),
                       y.mean(0) - at::matmul(x.mean(0), w)),
            1e-6);
}

TEST(Ridge, RecoversALinearMapAndItsLayer) {
  const ModelConfig base = small_config(3), auxiliary = small_config(3);
  const std::vector<int64_t> truth = {0, 0, 2};
  Predictor exact = random_predictor(base, auxiliary, truth);
  const auto pair_of_caches = [&](int64_t tokens) {
    const Cache from = random_cache(auxiliary, 1, tokens);
    Cache to;
    for (size_t i = 0; i < truth.size(); ++i) {
      const LayerCache& read = from[truth[i]];
      const auto mapped = [&](const LinearTransform& t, const Tensor& input) {
        return at::linear(input.flatten(2), t.weight, t.bias)
            .view({1, tokens, base.layers[i].kv_heads, base.head_dim});
      };
      const Tensor key = mapped(exact.key_transforms[i], read.key_prenorm);
      to.push_back({key, key, mapped(exact.value_transforms[i], read.value)});
    }
    return std::pair(to, from);
  };
  RidgeSums sums(base, auxiliary, at::kCPU), held_out(base, auxiliary, at::kCPU);
  const auto fit_on = pair_of_caches(400), judge_on = pair_of_caches(100);
  sums.add(fit_on.first, fit_on.second);
  held_out.add(judge_on.first, judge_on.second);
  const RidgeFit fit(sums, 1e-9);
  const Tensor errors = fit.errors(held_out);
  EXPECT_EQ(best_layer_map(errors, true), truth);
  for (int64_t i = 0; i < 3; ++i) {
    for (int64_t j = 0; j < 3; ++j) {
      const double error = errors[i][j].item<double>();
      if (truth[i] == j) {
        EXPECT_LT(error, 1e-6);
      } else {
        EXPECT_GT(error, 0.9);  // independent inputs explain nothing
      }
    }
  }
  const TensorMap fitted = fit.predictor(truth);
  for (int64_t i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i);
    EXPECT_LT(
        difference(fitted.at("key_transforms." + n + ".weight"), exact.key_transforms[i].weight),
        1e-4);
    EXPECT_LT(
        difference(fitted.at("value_transforms." + n + ".bias"), exact.value_transforms[i].bias),
        1e-4);
  }
}

TEST(LayerMap, IsTheBestThatNeverFallsOrTheBestOfEachLayer) {
  const Tensor errors = at::tensor({0.1, 0.5, 0.2, 0.9, 0.8, 0.1, 0.3, 0.2, 0.6}).view({3, 3});
  EXPECT_EQ(best_layer_map(errors, false), (std::vector<int64_t>{0, 2, 1}));
  // 0 2 2: 0.1 + 0.1 + 0.6; 0 1 1: 0.1 + 0.8 + 0.2; 0 0 1: 0.1 + 0.9 + 0.2.
  EXPECT_EQ(best_layer_map(errors, true), (std::vector<int64_t>{0, 2, 2}));
}

}  // namespace
}  // namespace kvcast::train

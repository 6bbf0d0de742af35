// Rates over a run, and the steps of the optimizers.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include "train/muon.h"
#include "train_test_support.h"

namespace kvcast::train {
namespace {

TEST(Schedule, WarmsUpThenFollowsTheCosineToItsFraction) {
  OptimizerRecipe recipe;
  recipe.learning_rate = 1.0;
  recipe.warmup_steps = 10;
  const auto rate = [&](int64_t step) {
    return learning_rate_at(recipe, step, static_cast<double>(step) / 100.0, 0.1);
  };
  EXPECT_DOUBLE_EQ(rate(0), 0.1);
  EXPECT_DOUBLE_EQ(rate(9), 1.0);
  EXPECT_DOUBLE_EQ(rate(10), 1.0);
  EXPECT_NEAR(rate(55), 0.55, 1e-12);
  EXPECT_NEAR(rate(100), 0.1, 1e-12);
}

TEST(Muon, MakesSingularValuesAboutEqual) {
  at::manual_seed(4);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{24, 40}, {40, 24}, {16, 16}}) {
    const Tensor matrices = at::randn({3, n, k}) * at::tensor({1.0F, 1e-4F, 1e4F}).view({3, 1, 1});
    const Tensor made = orthogonalised(matrices);
    ASSERT_EQ(made.sizes(), matrices.sizes());
    const Tensor values = at::linalg_svdvals(made);
    EXPECT_LT(values.max().item<double>(), 1.35);
    // A square random matrix has singular values near zero, which five iterations do not reach.
    if (n != k) {
      EXPECT_GT(values.min().item<double>(), 0.5);
    }
    // Along the matrix: U Vᵀ has the largest inner product of all with these singular values.
    const Tensor aligned = (made * matrices).sum({1, 2}) / at::linalg_svdvals(matrices).sum(1);
    EXPECT_GT(aligned.min().item<double>(), 0.6);
  }
}

TEST(Muon, StepsAlongTheMomentumOfMatricesAndLeavesTheRestToAdamW) {
  const std::vector<ParameterSpec> specs = {
      {"layers.0.w.weight", {8, 6}}, {"token_embeddings.weight", {8, 6}}, {"norm.weight", {6}}};
  const TensorMap values = initial_values(specs, 3);
  const auto after = [&](bool muon) {
    FlatParameters parameters(specs, values, at::kCPU);
    Gradients gradients(parameters);
    OptimizerRecipe recipe;
    recipe.muon = muon;
    recipe.weight_decay = 0.0;
    recipe.clip_norm = 1e9;
    AdamW optimizer(parameters, recipe);
    for (int step = 0; step < 3; ++step) {
      Tensor loss = at::zeros({});
      const TensorMap views = gradients.views(/*last=*/true);
      for (const auto& [name, view] : views) loss = loss + view.square().sum();
      loss.backward();
      gradients.finish();
      (void)optimizer.step(gradients, 1e-2);
      gradients.clear();
    }
    TensorMap result;
    for (const auto& [name, value] : parameters.gathered(parameters.master())) {
      result.emplace(name, value.clone());
    }
    return result;
  };
  const TensorMap by_muon = after(true), by_adamw = after(false);
  for (const char* name : {"token_embeddings.weight", "norm.weight"}) {
    EXPECT_LT((by_muon.at(name) - by_adamw.at(name)).abs().max().item<double>(), 1e-6) << name;
  }
  // The gradient is twice the matrix: each step is against its orthogonalised self.
  const Tensor given = values.at("layers.0.w.weight");
  const Tensor change = by_muon.at("layers.0.w.weight") - given;
  const Tensor expected = orthogonalised(given.unsqueeze(0))[0] * (-3.0 * 1e-2 * muon_scale(8, 6));
  EXPECT_LT((change - expected).norm().item<double>(), 0.25 * expected.norm().item<double>());
}

}  // namespace
}  // namespace kvcast::train

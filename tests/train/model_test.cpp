// Every fast form against its slow twin (libtorch's own operations, or another path).
#include "train/model.h"

#include <gtest/gtest.h>

#include "small_models.h"
#include "train/cross_entropy.h"
#include "train/gradients.h"

namespace kvcast::train {
namespace {

TEST(Swiglu, ValueAndGradientEqualThePlainForm) {
  const Tensor x = at::randn({3, 5, 14}).set_requires_grad(true);
  const Tensor weights = at::randn({3, 5, 7});
  const auto parts = x.chunk(2, -1);
  const Tensor plain = at::silu(parts[0]) * parts[1];
  (plain * weights).sum().backward();
  const Tensor expected = x.grad().clone();
  x.mutable_grad().zero_();
  const Tensor fast = swiglu(x);
  (fast * weights).sum().backward();
  EXPECT_LT(difference(fast, plain), 1e-6);
  EXPECT_LT(difference(x.grad(), expected), 1e-6);
}

TEST(Rope, ValueAndGradientEqualThePlainForm) {
  const RopeTable table = make_rope_table(20, Rope{}.frequencies(6), at::kCPU);
  const Tensor x = at::randn({2, 7, 3, 6}).set_requires_grad(true);
  const Tensor weights = at::randn({2, 7, 3, 6});
  const Tensor cos = at::cat({table.cos, table.cos}, -1).narrow(0, 4, 7);
  const Tensor sin = at::cat({table.sin, table.sin}, -1).narrow(0, 4, 7);
  const auto parts = x.chunk(2, -1);
  const Tensor plain = x * cos + at::cat({-parts[1], parts[0]}, -1) * sin;
  (plain * weights).sum().backward();
  const Tensor expected = x.grad().clone();
  x.mutable_grad().zero_();
  const Tensor fast = apply_rope(x, table, 4);
  (fast * weights).sum().backward();
  EXPECT_LT(difference(fast, plain), 1e-6);
  EXPECT_LT(difference(x.grad(), expected), 1e-6);
}

TEST(LinearCrossEntropy, ValueAndGradientsEqualThePlainFormForAnyChunk) {
  const Tensor hidden = at::randn({11, 6}).set_requires_grad(true);
  const Tensor lm_head = at::randn({13, 6}).set_requires_grad(true);
  const Tensor targets = at::randint(0, 12, {11}, at::kLong);
  targets[3] = 12;
  targets[7] = 12;
  const Tensor counted = targets.ne(12);
  const Tensor logits = at::matmul(hidden, lm_head.t());
  const Tensor lse = logits.logsumexp(-1).masked_select(counted);
  const Tensor picked = logits.gather(1, targets.unsqueeze(1)).squeeze(1).masked_select(counted);
  const Tensor plain = (lse - picked).mean() + 0.01 * lse.square().mean();
  (2.0 * plain).backward();
  const Tensor grad_hidden = hidden.grad().clone(), grad_lm_head = lm_head.grad().clone();
  for (const int64_t chunk : {13, 40, 1000}) {
    hidden.mutable_grad().zero_();
    lm_head.mutable_grad().zero_();
    CrossEntropyOptions options{.z_loss = 0.01, .ignore_index = 12, .chunk_elements = chunk};
    const auto fast = linear_cross_entropy(hidden, lm_head, targets, options);
    (2.0 * fast.total).backward();
    // The reported z-loss has the paper code's constant for two ignored rows.
    const double constant = 0.01 * 2.0 / 9.0 * std::pow(std::log(13.0), 2);
    EXPECT_NEAR(fast.total.item<double>() - constant, plain.item<double>(), 1e-5);
    EXPECT_LT(difference(hidden.grad(), grad_hidden), 1e-6);
    EXPECT_LT(difference(lm_head.grad(), grad_lm_head), 1e-5);
  }
}

TEST(Forward, LaterTokensDoNotChangeEarlierRows) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = small_config();
  const Model model = small_model(config, 1);
  const Tensor tokens = at::randint(0, 50, {2, 12}, at::kLong);
  const Tensor whole = forward(model, tokens);
  const Tensor part = forward(model, tokens.narrow(1, 0, 7));
  EXPECT_LT(difference(whole.narrow(1, 0, 7), part), 1e-5);
}

TEST(Forward, TheCacheAloneEqualsTheCacheOfTheWholePass) {
  const at::NoGradGuard no_grad;
  const Model model = small_model(small_config(), 1);
  const Tensor tokens = at::randint(0, 50, {2, 9}, at::kLong);
  Cache whole;
  forward(model, tokens, &whole);
  const Cache alone = forward_cache(model, tokens);
  ASSERT_EQ(alone.size(), whole.size());
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_LT(difference(alone[i].key_prenorm, whole[i].key_prenorm), 1e-6);
    EXPECT_LT(difference(alone[i].key, whole[i].key), 1e-6);
    EXPECT_LT(difference(alone[i].value, whole[i].value), 1e-6);
  }
}

TEST(Forward, ItsOwnCachePutInItsPlaceChangesNothing) {
  const at::NoGradGuard no_grad;
  const Model model = small_model(small_config(), 1);
  const Tensor tokens = at::randint(0, 50, {2, 9}, at::kLong);
  Cache cache;
  const Tensor exact = forward(model, tokens, &cache);
  EXPECT_LT(difference(forward_with_replaced_cache(model, tokens, cache), exact), 1e-5);
  const Tensor suffix = forward_after_prefix(model, tokens.narrow(1, 6, 3), prefix_of(cache, 6));
  EXPECT_LT(difference(suffix, exact.narrow(1, 6, 3)), 1e-5);
}

/// The gradients of all the model's weights and of a predicted cache, with and without recomputing.
TEST(Recompute, GivesTheSameLossAndGradients) {
  const ModelConfig config = small_config();
  const auto specs = model_parameter_specs(config);
  const Tensor tokens = at::randint(0, 50, {2, 9}, at::kLong);
  const Predictor identity = identity_predictor(config);
  std::vector<TensorMap> gradients;
  std::vector<double> losses;
  for (const int64_t recomputed : {0, 2, 3}) {
    FlatParameters parameters(specs, initial_values(specs, 1), at::kCPU);
    const RopeTable rope = rope_table(config, 64, at::kCPU);
    Gradients sums(parameters);
    Model auxiliary = bind_model(config, rope, sums.views(/*last=*/true), "");
    Model base = small_model(config, 2);
    auxiliary.recompute_layers = base.recompute_layers = recomputed;
    KvpLossOptions options;
    options.lambda_kl = 1.0;
    Tensor total;
    for (const int64_t predicted : {0, 4}) {
      const Tensor loss = kvp_loss(base, auxiliary, identity, tokens, tokens, options,
                                   {.predicted_tokens = predicted})
                              .total;
      total = total.defined() ? total + loss : loss;
    }
    total.backward();
    losses.push_back(total.item<double>());
    sums.finish();
    gradients.push_back(sums.by_name());
  }
  for (const size_t run : {1, 2}) {
    EXPECT_NEAR(losses[0], losses[run], 1e-6);
    for (const auto& [name, gradient] : gradients[0]) {
      EXPECT_LT(difference(gradient, gradients[run].at(name)), 1e-6) << name;
      EXPECT_GT(gradient.abs().max().item<double>(), 0.0) << name;
    }
  }
}

TEST(PredictedCache, EqualsExactWhenPredictorIsIdentity) {
  const at::NoGradGuard no_grad;
  const ModelConfig config = small_config();
  const Model model = small_model(config, 1);
  const Predictor identity = identity_predictor(config);
  const Tensor tokens = at::randint(0, 50, {2, 9}, at::kLong);
  const auto losses = kvp_loss(model, model, identity, tokens, tokens, {});
  EXPECT_NEAR(losses.base.total.item<double>(), losses.auxiliary.total.item<double>(), 1e-5);
  EXPECT_LT(losses.key_consistency.max().item<double>(), 1e-6);
  EXPECT_LT(losses.value_consistency.max().item<double>(), 1e-6);
}

}  // namespace
}  // namespace kvcast::train

// The losses beyond the paper's: each against a plain form, finite differences, or an identity.
#include "train/kvp_loss.h"

#include <gtest/gtest.h>

#include <functional>

#include "small_models.h"
#include "train/distillation.h"
#include "train/kvp_pass.h"

namespace kvcast::train {
namespace {

TEST(Distillation, ValueAndGradientEqualThePlainFormForAnyChunk) {
  const Tensor student = at::randn({11, 6}).set_requires_grad(true);
  const Tensor teacher = at::randn({11, 6});
  const Tensor lm_head = at::randn({13, 6});
  const Tensor targets = at::randint(0, 12, {11}, at::kLong);
  targets[3] = 12;
  targets[7] = 12;
  const Tensor rows = targets.ne(12).nonzero().squeeze(1);
  const Tensor log_q = at::matmul(student, lm_head.t()).index_select(0, rows).log_softmax(-1);
  const Tensor log_p = at::matmul(teacher, lm_head.t()).index_select(0, rows).log_softmax(-1);
  const Tensor lse = at::matmul(student, lm_head.t()).index_select(0, rows).logsumexp(-1);
  const Tensor kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean();
  const Tensor ce = -log_q.gather(1, targets.index_select(0, rows).unsqueeze(1)).mean() +
                    0.01 * lse.square().mean();
  const Tensor plain = 0.7 * ce + 1.3 * kl;
  (2.0 * plain).backward();
  const Tensor expected = student.grad().clone();
  for (const int64_t chunk : {13, 40, 1000}) {
    student.mutable_grad().zero_();
    const Distillation fast = linear_distillation(
        student, teacher, lm_head, targets,
        {0.7, 1.3, {.z_loss = 0.01, .ignore_index = 12, .chunk_elements = chunk}});
    (2.0 * fast.total).backward();
    // The constant that the paper's code adds for ignored rows (cross_entropy.h).
    const double constant = 0.7 * 0.01 * 2.0 / 9.0 * std::pow(std::log(13.0), 2);
    EXPECT_NEAR(fast.total.item<double>() - constant, plain.item<double>(), 1e-5);
    EXPECT_NEAR(fast.kl.item<double>(), kl.item<double>(), 1e-5);
    EXPECT_LT(difference(student.grad(), expected), 1e-6);
  }
}

TEST(Distillation, WithoutDivergenceItIsTheCrossEntropy) {
  const Tensor student = at::randn({7, 6}), lm_head = at::randn({13, 6});
  const Tensor targets = at::randint(0, 13, {7}, at::kLong);
  const Distillation same = linear_distillation(student, student, lm_head, targets, {1.0, 1.0, {}});
  const CrossEntropy plain = linear_cross_entropy(student, lm_head, targets, {});
  EXPECT_NEAR(same.kl.item<double>(), 0.0, 1e-6);
  EXPECT_NEAR(same.total.item<double>(), plain.total.item<double>(), 1e-5);
}

TEST(AttentionOutput, IsWhatTheExactPassAdds) {
  const at::NoGradGuard no_grad;
  const Model model = small_model(small_config(), 1);
  const Tensor tokens = at::randint(0, 50, {2, 9}, at::kLong);
  Cache cache;
  std::vector<AttentionTrace> attention;
  forward(model, tokens, &cache, &attention);
  ASSERT_EQ(attention.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    const Tensor later = attention_output(model, i, attention[i].query.narrow(1, 4, 5), cache[i]);
    EXPECT_LT(difference(later, attention[i].output.narrow(1, 4, 5)), 1e-6);
  }
}

/// A base, an auxiliary and a predictor whose parameters are leaves.
class KvpLoss : public testing::Test {
 protected:
  KvpLoss() {
    for (const auto& spec : predictor_parameter_specs(base_.config, auxiliary_.config, map_)) {
      leaves_[spec.name] = initial_values({spec}, 5).at(spec.name).set_requires_grad(true);
    }
  }
  [[nodiscard]] Predictor predictor() const { return bind_predictor(map_, leaves_, ""); }
  [[nodiscard]] KvpLosses losses(const KvpLossOptions& options, const KvpPass& pass) const {
    return kvp_loss(base_, auxiliary_, predictor(), tokens_, targets_, options, pass);
  }

  /// The gradient along a random direction against the loss's central difference.
  void check_gradient(const KvpLossOptions& options, const KvpPass& pass) {
    losses(options, pass).total.backward();
    double analytic = 0.0;
    TensorMap directions;
    for (const auto& [name, leaf] : leaves_) {
      directions[name] = at::randn_like(leaf);
      analytic += (leaf.grad() * directions[name]).sum().item<double>();
    }
    const at::NoGradGuard no_grad;
    const double step = 1e-3;
    const auto moved = [&](double by) {
      for (auto& [name, leaf] : leaves_) leaf.add_(directions[name], by);
      return losses(options, pass).total.item<double>();
    };
    const double above = moved(step), below = moved(-2 * step);
    EXPECT_NEAR((above - below) / (2 * step), analytic, 0.01 * std::abs(analytic) + 2e-3);
  }

  const int seeded_ = (at::manual_seed(7), 0);
  Model base_ = small_model(small_config(4), 1);
  Model auxiliary_ = small_model(small_config(2, 24), 2);
  std::vector<int64_t> map_ = {0, 0, 1, 1};
  TensorMap leaves_;
  Tensor tokens_ = at::randint(0, 50, {2, 12}, at::kLong);
  Tensor targets_ = at::randint(0, 50, {2, 12}, at::kLong);
};

TEST_F(KvpLoss, GradientOfTheSplitPassWithDivergenceMatchesFiniteDifferences) {
  KvpLossOptions options;
  options.lambda_kl = 2.0;
  options.consistency = Consistency::kNone;  // L1 has kinks
  check_gradient(options, {.predicted_tokens = 7});
}

TEST_F(KvpLoss, GradientOfAttentionMatchingMatchesFiniteDifferences) {
  KvpLossOptions options;
  options.consistency = Consistency::kAttentionOutput;
  check_gradient(options, {.predicted_tokens = 5});
}

TEST_F(KvpLoss, GradientOfAttentionMatchingInThePapersPassMatchesFiniteDifferences) {
  KvpLossOptions options;
  options.consistency = Consistency::kAttentionOutput;
  options.lambda_kl = 1.0;
  check_gradient(options, {});
}

TEST_F(KvpLoss, TheSplitPassIsTheBaseAfterThePredictedPrefix) {
  const at::NoGradGuard no_grad;
  KvpTrace trace;
  const KvpPass pass{.predicted_tokens = 7};
  const KvpLosses split =
      kvp_loss(base_, auxiliary_, predictor(), tokens_, targets_, {}, pass, &trace);
  // As heldout and the runtime do it: the auxiliary reads the prefix alone.
  const Cache read = forward_cache(auxiliary_, tokens_.narrow(1, 0, 7));
  const Tensor hidden =
      forward_after_prefix(base_, tokens_.narrow(1, 7, 5), predict_cache(predictor(), base_, read));
  EXPECT_LT(difference(trace.base_hidden, hidden), 1e-5);
  const CrossEntropy plain = linear_cross_entropy(hidden.flatten(0, 1), base_.lm_head,
                                                  targets_.narrow(1, 7, 5).flatten(), {});
  EXPECT_NEAR(split.base.total.item<double>(), plain.total.item<double>(), 1e-5);
}

TEST_F(KvpLoss, ATailLeavesItsTokensUnscored) {
  const at::NoGradGuard no_grad;
  KvpTrace trace;
  const KvpLosses tail = kvp_loss(base_, auxiliary_, predictor(), tokens_, targets_, {},
                                  {.predicted_tokens = 7, .tail_tokens = 3}, &trace);
  const CrossEntropy last =
      linear_cross_entropy(trace.base_hidden.narrow(1, 2, 3).flatten(0, 1), base_.lm_head,
                           targets_.narrow(1, 9, 3).flatten(), {});
  EXPECT_NEAR(tail.base.cross_entropy.item<double>(), last.cross_entropy.item<double>(), 1e-5);
}

TEST_F(KvpLoss, AnIdentityPredictorLeavesNothingToMatch) {
  const at::NoGradGuard no_grad;
  KvpLossOptions options;
  options.lambda_kl = 1.0;
  options.consistency = Consistency::kAttentionOutput;
  const Predictor identity = identity_predictor(base_.config);
  for (const int64_t predicted : {0, 5}) {
    const KvpLosses same = kvp_loss(base_, base_, identity, tokens_, targets_, options,
                                    {.predicted_tokens = predicted});
    EXPECT_NEAR(same.kl.item<double>(), 0.0, 1e-6);
    EXPECT_LT(same.attention_consistency.max().item<double>(), 1e-9);
  }
}

TEST_F(KvpLoss, AnAuxiliaryWithoutLossReadsNoFurtherThanTheSplit) {
  KvpLossOptions options;
  options.lambda_auxiliary = 0.0;
  options.lambda_kl = 1.0;
  options.consistency = Consistency::kAttentionOutput;
  const KvpPass pass{.predicted_tokens = 7};
  const KvpLosses whole = losses(options, pass);
  options.auxiliary_kv_only_last = true;
  KvpTrace trace;
  const KvpLosses cut =
      kvp_loss(base_, auxiliary_, predictor(), tokens_, targets_, options, pass, &trace);
  EXPECT_EQ(trace.predicted[0].key.size(1), 7);
  EXPECT_NEAR(cut.total.item<double>(), whole.total.item<double>(), 1e-5);
}

TEST_F(KvpLoss, WithoutItsOutputTheAuxiliaryHasNoLoss) {
  KvpLossOptions options;
  options.auxiliary_kv_only_last = true;
  options.lambda_auxiliary = 0.0;
  const KvpLosses cut = losses(options, {});
  EXPECT_FALSE(cut.auxiliary.total.defined());
  options.auxiliary_kv_only_last = false;
  EXPECT_NEAR(cut.total.item<double>(), losses(options, {}).total.item<double>(), 1e-5);
}

KvpRecipe pass_recipe(double share) {
  KvpRecipe recipe;
  recipe.split_share = share;
  recipe.data.sequence_tokens = 1024;
  return recipe;
}

TEST(KvpPasses, AreThePapersByDefault) {
  for (int64_t step = 0; step < 50; ++step) {
    EXPECT_EQ(kvp_pass_at(pass_recipe(0.0), step).predicted_tokens, 0);
  }
}

TEST(KvpPasses, SplitsCoverTheirRangeEvenlyOnFewShapes) {
  KvpRecipe recipe = pass_recipe(1.0);
  recipe.tail_max = 8;
  std::map<int64_t, int> seen;
  std::map<int64_t, int> tails;
  for (int64_t step = 0; step < 1200; ++step) {
    const KvpPass pass = kvp_pass_at(recipe, step);
    ++seen[pass.predicted_tokens];
    ++tails[pass.tail_tokens];
  }
  ASSERT_EQ(seen.size(), 13U);  // 2..14 sixteenths
  EXPECT_EQ(seen.begin()->first, 128);
  EXPECT_EQ(seen.rbegin()->first, 896);
  for (const auto& [predicted, count] : seen) {
    const bool edge = predicted == 128 || predicted == 896;
    EXPECT_NEAR(count, edge ? 50 : 100, 5) << predicted;
  }
  ASSERT_EQ(tails.size(), 8U);
  EXPECT_EQ(tails.begin()->first, 1);
  EXPECT_EQ(tails.rbegin()->first, 8);
}

TEST(KvpPasses, AMixtureSpreadsBothKindsEvenlyAndStaysInsideTheSequence) {
  KvpRecipe recipe = pass_recipe(0.25);
  recipe.split_from = 0.0;
  recipe.split_to = 1.0;
  recipe.data.sequence_tokens = 5;
  for (int64_t first = 0; first < 400; first += 4) {
    int splits = 0;
    for (int64_t step = first; step < first + 4; ++step) {
      const int64_t predicted = kvp_pass_at(recipe, step).predicted_tokens;
      if (predicted > 0) ++splits;
      EXPECT_LT(predicted, 5);
    }
    EXPECT_EQ(splits, 1);
  }
}

}  // namespace
}  // namespace kvcast::train

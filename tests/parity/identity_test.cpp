// With the base as its own auxiliary and an identity predictor, KV prediction is exact.
#include <gtest/gtest.h>

#include "prefill/strategy.h"
#include "support/identity_bundle.h"
#include "support/tensors.h"

namespace kvcast {
namespace {

TEST(Identity, PredictedCacheAndLogitsEqualExactWhenPredictorIsIdentity) {
  const IdentityBundle bundle;
  auto loaded = load_models(bundle.path(), WeightType::kF32, 2);
  ASSERT_TRUE(loaded) << loaded.error().message;
  const Models& models = *loaded;
  PrefillWorkspace workspace;
  const auto run = [&](const char* spec, Sequence& sequence) {
    Sequence* const batch[] = {&sequence};
    std::vector<float> logits(static_cast<size_t>(models.base->config().vocab_size));
    sequence.tokens = {5, 17, 3, 40, 41, 42, 9, 80, 1, 2, 33, 64};
    (*PrefillStrategy::parse(spec))->prefill(models, batch, logits.data(), workspace, {});
    return logits;
  };
  Sequence exact(models);
  const auto exact_logits = run("exact", exact);
  for (const char* spec : {"kv-prediction", "kv-prediction:tail=5"}) {
    Sequence predicted(models);
    EXPECT_LT(relative_to_largest(run(spec, predicted), exact_logits), 1e-5) << spec;
    for (int64_t layer = 0; layer < exact.base.n_layers(); ++layer) {
      EXPECT_LT(largest_difference(cached_values(predicted.base, layer),
                                   cached_values(exact.base, layer)),
                1e-4);
      EXPECT_LT(largest_difference(keys_without_rope(predicted.base, layer, *models.base),
                                   keys_without_rope(exact.base, layer, *models.base)),
                1e-4);
    }
  }
}

}  // namespace
}  // namespace kvcast

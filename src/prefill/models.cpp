#include "prefill/models.h"

#include <algorithm>

#include "base/macros.h"
#include "model/bundle.h"
#include "model/checkpoint.h"

namespace kvcast {

int64_t Models::weight_bytes() const {
  int64_t bytes = base->weights().bytes();
  if (auxiliary) bytes += auxiliary->weights().bytes();
  if (predictor) bytes += predictor->bytes();
  return bytes;
}

ModelPair Models::shapes() const {
  return {base->config(), auxiliary ? auxiliary->config() : ModelConfig{}, plan};
}

Result<Models> load_models(const std::filesystem::path& directory, std::optional<WeightType> type,
                           int threads) {
  Models models;
  if (!is_bundle(directory)) {
    KVCAST_TRY(models.base, Transformer::load(directory, type, threads));
    return models;
  }
  KVCAST_TRY(const BundleManifest manifest, read_bundle_manifest(directory));
  KVCAST_TRY(Checkpoint base, open_checkpoint(manifest.base));
  if (!manifest.auxiliary.empty()) {
    KVCAST_TRY(Checkpoint auxiliary, open_checkpoint(manifest.auxiliary));
    const int64_t tokens = std::min(base.config.vocab_size, auxiliary.config.vocab_size);
    base.config.use_tokens(tokens);
    auxiliary.config.use_tokens(tokens);
    KVCAST_TRY(models.auxiliary, Transformer::load(std::move(auxiliary), type, threads));
  }
  KVCAST_TRY(models.base, Transformer::load(std::move(base), type, threads));
  const WeightType predictor_type = type.value_or(models.base->weights().main_type());
  KVCAST_TRY(models.predictor,
             Predictor::load(manifest.predictor, models.base->config(), models.shapes().auxiliary,
                             manifest.plan, predictor_type, threads));
  models.plan = manifest.plan;
  models.gate = manifest.gate;
  return models;
}

Models random_models(const ModelConfig& base, const ModelConfig* auxiliary,
                     const ForecastPlan& plan, WeightType type, int threads) {
  Models models;
  models.base =
      std::make_unique<Transformer>(base, random_weights(base, type, threads, 1), threads);
  if (auxiliary) {
    models.auxiliary = std::make_unique<Transformer>(
        *auxiliary, random_weights(*auxiliary, type, threads, 2), threads);
    models.predictor = Predictor::random(base, *auxiliary, plan, type, threads, 3);
    models.plan = plan;
  }
  return models;
}

}  // namespace kvcast

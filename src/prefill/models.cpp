#include "prefill/models.h"

#include <algorithm>

#include "base/macros.h"
#include "model/adapted_layers.h"
#include "model/bundle.h"
#include "model/checkpoint.h"
#include "model/weight_reader.h"

namespace kvcast {

namespace {

/// What the auxiliary has of the base's.
int64_t shared_bytes(const Models& models) {
  if (models.shared_layers.empty()) return 0;
  ModelWeights shared = models.auxiliary->weights();  // matrices are not copied
  for (size_t i = 0; i < shared.layers.size(); ++i) {
    if (models.shared_layers[i] == kOwnLayer) shared.layers[i] = {};
  }
  return shared.bytes();
}

}  // namespace

int64_t Models::weight_bytes() const {
  int64_t bytes = base->weights().bytes();
  if (auxiliary) bytes += auxiliary->weights().bytes() - shared_bytes(*this);
  if (predictor) bytes += predictor->bytes();
  return bytes;
}

ModelPair Models::shapes() const {
  return {base->config(), auxiliary ? auxiliary->config() : ModelConfig{}, plan};
}

Result<std::optional<WeightType>> type_of_maps(const std::filesystem::path& predictor,
                                               std::optional<WeightType> asked,
                                               WeightType main_type) {
  if (asked) return asked;
  KVCAST_TRY(const auto file, Safetensors::open(predictor));
  if (is_packed(*file)) return std::nullopt;
  return main_type == WeightType::kInt4Blocks ? WeightType::kInt8Blocks : main_type;
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
  std::optional<Checkpoint> auxiliary;
  if (!manifest.auxiliary.empty()) {
    KVCAST_TRY(auxiliary, open_checkpoint(manifest.auxiliary));
    const int64_t tokens = std::min(base.config.vocab_size, auxiliary->config.vocab_size);
    base.config.use_tokens(tokens);
    auxiliary->config.use_tokens(tokens);
  }
  KVCAST_TRY(models.base, Transformer::load(std::move(base), type, threads));
  models.shared_layers = manifest.shared_layers;
  if (auxiliary && models.shared_layers.empty()) {
    KVCAST_TRY(models.auxiliary, Transformer::load(std::move(*auxiliary), type, threads));
  } else if (auxiliary) {
    const SharedWeights shared{models.base->weights(), models.shared_layers};
    KVCAST_TRY(
        ModelWeights weights,
        manifest.adapted_layers.empty()
            ? load_weights(*auxiliary, shared, type, threads)
            : load_adapted_weights(*auxiliary, shared, manifest.adapted_layers, type, threads));
    models.auxiliary =
        std::make_unique<Transformer>(std::move(auxiliary->config), std::move(weights), threads);
  }
  KVCAST_TRY(const auto predictor_type,
             type_of_maps(manifest.predictor, type, models.base->weights().main_type()));
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

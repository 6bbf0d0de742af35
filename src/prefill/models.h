// The models that strategies work with: loading a bundle or a plain model, or random weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "kvcast/result.h"
#include "model/architectures.h"
#include "model/transformer.h"
#include "prefill/predictor.h"
#include "prefill/prefill_pace.h"
#include "prefill/refine_pace.h"
#include "prefill/step_costs.h"

namespace kvcast {

/// The models that strategies work with. `auxiliary` and `predictor` are null for a plain model,
/// `auxiliary` alone in a bundle whose base reads the prompt itself.
struct Models {
  std::unique_ptr<Transformer> base;
  std::unique_ptr<Transformer> auxiliary;
  std::unique_ptr<Predictor> predictor;
  ForecastPlan plan;  ///< no inputs for a plain model
  /// Which of the base's layers the auxiliary has (BundleManifest); empty: it is a model of its
  /// own.
  std::vector<int64_t> shared_layers;
  /// Below which a forecast is not to be trusted (GateDecision), as calibrated for the bundle.
  std::optional<double> gate = {};
  /// How the caches of a Sequence hold keys and values.
  KvType kv_type = KvType::kF32;
  /// What this machine can refine beside decode steps of the base.
  std::unique_ptr<RefinePace> pace = std::make_unique<RefinePace>();
  /// What rows cost in decode steps of the base, and of the auxiliary where it answers, mixes or
  /// guesses.
  std::unique_ptr<StepCosts> base_costs = std::make_unique<StepCosts>();
  std::unique_ptr<StepCosts> auxiliary_costs = std::make_unique<StepCosts>();
  /// How long it takes to read prompts.
  std::unique_ptr<PrefillPace> prefill_pace = std::make_unique<PrefillPace>();

  [[nodiscard]] bool is_bundle() const { return predictor != nullptr; }
  /// Whether there is an auxiliary that can answer by itself.
  [[nodiscard]] bool auxiliary_answers() const { return auxiliary && shared_layers.empty(); }
  [[nodiscard]] int64_t weight_bytes() const;
  /// For counting costs; `auxiliary` is empty for a plain model.
  [[nodiscard]] ModelPair shapes() const;
};

/// What the maps of a predictor file are held as: as asked for, as they are packed (nullopt), or as
/// most of the base (`main_type`); but not unasked in 4 bits, where a forecast loses more than its
/// few weights save.
Result<std::optional<WeightType>> type_of_maps(const std::filesystem::path& predictor,
                                               std::optional<WeightType> asked,
                                               WeightType main_type);

/// Loads a bundle, or a plain model directory as a base alone. `type` null: as stored, a
/// predictor that is not packed as most of the base, in 8 bits at least.
Result<Models> load_models(const std::filesystem::path& directory, std::optional<WeightType> type,
                           int threads);

/// Random weights of known shapes; `auxiliary` null for a plain model.
Models random_models(const ModelConfig& base, const ModelConfig* auxiliary,
                     const ForecastPlan& plan, WeightType type, int threads);

}  // namespace kvcast

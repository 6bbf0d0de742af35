// What a training run will take, before its first step: memory of one GPU by kind, operations,
// time. Also which layers to recompute, so that it fits.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "model/config.h"
#include "train/data/recipe.h"
#include "train/gpu.h"

namespace kvcast::train {

/// Layers, counted from the first, that run again in the backward pass.
struct RecomputedLayers {
  int64_t auxiliary = 0, base = 0;
};

/// Bytes of one GPU that tensors take at a step's peak.
struct MemoryPlan {
  double base = 0;         ///< frozen weights
  double parameters = 0;   ///< trained ones as forward passes read them
  double gradients = 0;    ///< f32, this GPU's micro-batches
  double optimizer = 0;    ///< f32 master values and moments, this GPU's shares
  double activations = 0;  ///< kept for the backward pass, caches and outputs included
  double transient = 0;    ///< what the largest single operation takes besides

  [[nodiscard]] double total() const {
    return base + parameters + gradients + optimizer + activations + transient;
  }
};

struct PlanDevice {
  std::optional<Gpu> gpu;  ///< none: a CPU, or one of which nothing is known
  int64_t processes = 1;   ///< GPUs
};

struct TrainingPlan {
  PlanDevice device;
  MemoryPlan memory;
  RecomputedLayers recomputed;
  double trained_parameters = 0, frozen_parameters = 0;
  int64_t steps = 0, tokens_per_step = 0;
  double flops_per_token = 0;    ///< what the utilisation counts
  double tokens_per_second = 0;  ///< expected of all GPUs together; 0: no GPU to say it of

  [[nodiscard]] double tokens() const {
    return static_cast<double>(steps) * static_cast<double>(tokens_per_step);
  }
  [[nodiscard]] double hours() const { return tokens() / tokens_per_second / 3600.0; }
  /// Of the GPUs' peak.
  [[nodiscard]] double utilisation() const;
  /// The GPU's memory less what the driver, libraries and the allocator's gaps take.
  [[nodiscard]] double usable_memory() const;
  [[nodiscard]] bool fits() const { return !device.gpu || memory.total() <= usable_memory(); }
};

/// A run of `kvp`.
TrainingPlan plan_kvp(const ModelConfig& base, const ModelConfig& auxiliary,
                      const std::vector<int64_t>& layer_map, const KvpRecipe& recipe,
                      const PlanDevice& device);
/// A run of `pretrain` or `alone`.
TrainingPlan plan_next_tokens(const ModelConfig& model, const RunRecipe& run,
                              const DataRecipe& data, const PlanDevice& device);

/// A few lines for people.
std::string describe(const TrainingPlan& plan);
Json to_json(const TrainingPlan& plan);

}  // namespace kvcast::train

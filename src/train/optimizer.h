// AdamW (Loshchilov & Hutter 2019) on this process's shares of the flat buffers, with clipping by
// the global norm; where the recipe asks for it, Muon for the matrices (muon.h).
#pragma once

#include <map>
#include <vector>

#include "train/data/recipe.h"
#include "train/gradients.h"

namespace kvcast::train {

/// Uses no host synchronisation. Not thread-safe; `parameters` must outlive it.
class AdamW {
 public:
  AdamW(FlatParameters& parameters, const OptimizerRecipe& recipe);

  /// One update with the finished gradients, which are divided on the way. Publishes the
  /// parameters. Returns the gradients' norm before clipping, a scalar on the device. In every
  /// process.
  Tensor step(const Gradients& gradients, double learning_rate);

  /// exp_avg.NAME and exp_avg_sq.NAME for every parameter; gathered, so called in every process and
  /// empty but in the first.
  [[nodiscard]] TensorMap state() const;
  [[nodiscard]] int64_t steps() const { return steps_; }
  /// The inverse of state(), after `steps` updates. Throws TrainError if a tensor is missing.
  void restore(const TensorMap& state, int64_t steps);

 private:
  /// AdamW of one buffer with grad / divisor.
  void update(size_t buffer, Tensor grad, const Tensor& divisor, double learning_rate);
  /// Muon of the matrices but embeddings and head, AdamW of those; beta1 is the momentum of both.
  void update_by_muon(Tensor grad, const Tensor& divisor, double learning_rate);

  FlatParameters& parameters_;
  OptimizerRecipe recipe_;
  Buffers exp_avg_, exp_avg_sq_;
  using Slot = ParameterLayout::Slot;
  std::map<std::vector<int64_t>, std::vector<Slot>> muon_slots_;  ///< by their shape
  std::vector<Slot> other_slots_;                                 ///< matrices that AdamW has
  int64_t steps_ = 0;
};

/// Linear warm-up, then a cosine from the peak to final_fraction of it. `progress` in [0, 1] is the
/// share of the run that is done; `warmup_share` the share that warm-up takes of the whole.
double learning_rate_at(const OptimizerRecipe& recipe, int64_t step, double progress,
                        double warmup_share);

}  // namespace kvcast::train

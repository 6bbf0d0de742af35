// AdamW (Loshchilov & Hutter 2019) on the flat buffers, with clipping by the global norm.
#pragma once

#include "train/data/recipe.h"
#include "train/parameters.h"

namespace kvcast::train {

/// Uses no host synchronisation. Not thread-safe; `parameters` must outlive it.
class AdamW {
 public:
  AdamW(const FlatParameters& parameters, const OptimizerRecipe& recipe);

  /// One update with the accumulated gradients, which are zeroed. Returns their norm before
  /// clipping, a scalar on the device.
  Tensor step(double learning_rate);

  /// exp_avg.NAME and exp_avg_sq.NAME for every parameter, views of the state.
  [[nodiscard]] TensorMap state() const;
  [[nodiscard]] int64_t steps() const { return steps_; }
  /// The inverse of state(), after `steps` updates. Throws TrainError if a tensor is missing.
  void restore(const TensorMap& state, int64_t steps);

 private:
  struct Moments {
    Tensor parameter, exp_avg, exp_avg_sq;
    double weight_decay;
  };
  /// AdamW of one buffer with grad / divisor; zeroes grad.
  void update(Moments& moments, Tensor& grad, const Tensor& divisor, double learning_rate) const;

  const FlatParameters& parameters_;
  OptimizerRecipe recipe_;
  Moments matrices_, vectors_;
  int64_t steps_ = 0;
};

/// Linear warm-up, then a cosine from the peak to final_fraction of it. `progress` in [0, 1] is the
/// share of the run that is done; `warmup_share` the share that warm-up takes of the whole.
double learning_rate_at(const OptimizerRecipe& recipe, int64_t step, double progress,
                        double warmup_share);

}  // namespace kvcast::train

// Watches loss and gradient norm of every step without making the device wait: what a step
// computed is looked at a few steps later, when it is on the host anyway.
#pragma once

#include <c10/core/Event.h>

#include <deque>
#include <optional>

#include "train/torch.h"

namespace kvcast::train {

/// A step that must not be followed by others.
struct BadStep {
  int64_t step = 0;  ///< updates done before
  double loss = 0.0, gradient_norm = 0.0;
  std::optional<double> mean_loss;  ///< of the steps before, if the loss jumped; none: not finite
};

/// Not thread-safe. In a run of several processes all see the same values at the same step.
class LossMonitor {
 public:
  /// `max_jump`: how far a loss may lie above the running mean; 0: any.
  explicit LossMonitor(double max_jump) : max_jump_(max_jump) {}

  /// The scalars loss and gradient norm of a step.
  void add(int64_t step, const Tensor& loss, const Tensor& gradient_norm);
  /// The first bad step among all but the last `steps_in_flight` added.
  std::optional<BadStep> check(size_t steps_in_flight);

 private:
  struct Entry {
    int64_t step;
    Tensor values;  // [2] on the host, filled once `ready` has happened
    std::optional<c10::Event> ready;
  };
  double max_jump_;
  std::deque<Entry> entries_;
  std::optional<double> mean_;
};

}  // namespace kvcast::train

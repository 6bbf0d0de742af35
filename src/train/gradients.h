// Gradients of FlatParameters: summed in f32 over micro-batches, then over processes, each of which
// gets the sums of its own shares; the second sum overlaps the last backward pass.
#pragma once

#include <memory>
#include <vector>

#include "train/parameters.h"

namespace kvcast::train {

/// `parameters` must outlive it and not move. Not thread-safe.
class Gradients {
 public:
  explicit Gradients(FlatParameters& parameters);

  /// The parameters for one forward and backward pass, in their compute dtype. A parameter's
  /// gradient is added as soon as the pass has it; after `last`, a bucket's goes to the other
  /// processes as soon as it is whole, in the same order in every process.
  TensorMap views(bool last);
  /// After the backward pass of the last views.
  void finish();
  /// Before the next step's first pass.
  void clear();

  /// The sums over all processes of this one's shares, after finish(); like parameters.master().
  [[nodiscard]] const Buffers& shares() const { return shares_; }
  /// This process's own sums, by name.
  [[nodiscard]] TensorMap by_name() const { return parameters_.layout().split(whole_); }

 private:
  struct Arrival;  // a node of autograd's graph that hands gradients over

  void arrive(const ParameterLayout::Slot& slot, const Tensor& gradient);
  /// Sends the next buckets in order, as far as they are whole.
  void send_whole_buckets();

  FlatParameters& parameters_;
  Buffers whole_, shares_;  // one and the same where one process has it all
  Tensor anchor_;           // makes autograd follow the views
  bool sending_ = false;
  std::vector<size_t> missing_;  // by bucket: parameters whose gradient is to come
  std::vector<std::unique_ptr<Pending>> pending_;
};

}  // namespace kvcast::train

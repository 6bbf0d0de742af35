// Sums of gradients over processes, overlapped with the backward pass.
#pragma once

#include <memory>
#include <vector>

#include "train/parameters.h"
#include "train/processes.h"

namespace kvcast::train {

/// The flat gradient is cut into buckets of consecutive parameters. A bucket goes to the other
/// processes as soon as the backward pass has left it behind, from the last parameters to the
/// first, while the pass goes on. The buckets are the same and in the same order in every process.
/// All references must outlive it. Not thread-safe.
class GradientSum {
 public:
  /// `bucket_bytes`: of f32 gradients; a parameter is never split.
  GradientSum(FlatParameters& parameters, Processes& processes,
              int64_t bucket_bytes = int64_t{32} << 20);

  /// `views` for a forward pass whose backward pass is to be summed; valid for one step.
  TensorMap watched(const TensorMap& views);
  /// After that backward pass: the gradients of `parameters` are the sums over all processes of
  /// what each has accumulated.
  void finish();

 private:
  struct Slot {
    Tensor local, total;  // this parameter's part of the flat gradient, and of the summed one
    size_t bucket;
    bool arrived = false;
  };
  struct Bucket {
    Tensor total;  // a range of totals_
    size_t missing = 0, members = 0;
    std::unique_ptr<PendingSum> pending;
  };

  void arrive(Slot& slot, const Tensor& gradient);
  /// Sends the next buckets in order, as far as they are whole.
  void send_whole_buckets();

  FlatParameters& parameters_;
  Processes& processes_;
  Tensor totals_[2];  // of matrices and vectors, laid out like them
  std::map<std::string, Slot> slots_;
  std::vector<Bucket> buckets_;  // in the order they are sent
  size_t next_ = 0;
};

}  // namespace kvcast::train

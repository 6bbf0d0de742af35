// Batches, read ahead of the step that needs them.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "train/data/window_sampler.h"
#include "train/torch.h"

namespace kvcast::train {

struct Batch {
  Tensor input_ids, targets;  // [B, T] int64, on the device
};

/// A thread fills batches from the sampler, in pinned memory where the device is a GPU. Batch n
/// holds samples n * B .. n * B + B - 1. next() is for one thread.
class BatchLoader {
 public:
  /// Batches first, first + stride, ... of so many sequences: each process of a run reads its
  /// share.
  BatchLoader(const WindowSampler& sampler, int64_t sequences, int64_t first, int64_t stride,
              const at::Device& device);
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  /// The next batch; rethrows what went wrong in the thread.
  Batch next();

 private:
  void fill();

  static constexpr size_t kAhead = 4;
  const WindowSampler& sampler_;
  int64_t sequences_, next_to_read_, stride_;
  at::Device device_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Tensor> ready_;  // [B, T + 1] each
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

/// Samples first .. first + n - 1 of the sampler, [n, sequence_tokens + 1] on the host.
Tensor read_samples(const WindowSampler& sampler, int64_t first, int64_t n, bool pinned = false);

}  // namespace kvcast::train

// Several processes training one model, each on its share of every step's sequences: c10d, with
// NCCL between GPUs and Gloo between CPUs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "train/torch.h"

namespace kvcast::train {

/// A sum under way.
class PendingSum {
 public:
  virtual ~PendingSum() = default;
  /// What is done with the tensor afterwards sees the sum; on a GPU the host does not wait.
  virtual void wait() = 0;
};

/// The processes of a run, or this one alone. Everything but the getters must be called by all of
/// them in the same order. Not thread-safe. Throws TrainError if the others cannot be reached.
class Processes {
 public:
  /// By torchrun's variables RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; alone if WORLD_SIZE is not
  /// set. Waits for all processes.
  static std::unique_ptr<Processes> from_environment(const at::Device& device);
  /// This process alone.
  Processes();
  ~Processes();
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  [[nodiscard]] int64_t rank() const { return rank_; }
  [[nodiscard]] int64_t count() const { return count_; }
  /// The one that logs and writes.
  [[nodiscard]] bool first() const { return rank_ == 0; }

  /// `tensor` (contiguous) becomes its sum over all processes; it must stay untouched until wait().
  std::unique_ptr<PendingSum> sum(Tensor& tensor);
  /// `tensor` becomes the first process's.
  void broadcast(Tensor& tensor);
  /// The first process's text, given to all. Between hosts alone: no device waits.
  std::string agree(const std::string& text);

 private:
  struct Group;
  std::unique_ptr<Group> group_;  // none: alone
  int64_t rank_ = 0, count_ = 1, turn_ = 0;
};

/// LOCAL_RANK, which torchrun sets: the GPU of this process; 0 otherwise.
int64_t local_rank();

}  // namespace kvcast::train

// Several processes training one model, each on its share of every step's sequences: c10d, with
// NCCL between GPUs and Gloo between CPUs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "train/torch.h"

namespace kvcast::train {

/// An exchange between processes under way.
class Pending {
 public:
  virtual ~Pending() = default;
  /// What is done with the tensors afterwards sees the result; on a GPU the host does not wait.
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
  std::unique_ptr<Pending> sum(Tensor& tensor);
  /// `share` becomes this process's part of the sum of `whole`, which is cut evenly among them in
  /// order of rank. `whole` is undefined afterwards. Alone, the two are the same memory.
  std::unique_ptr<Pending> sum_shares(Tensor& whole, Tensor& share);
  /// `whole` is cut likewise; every process's part becomes what that process has there.
  std::unique_ptr<Pending> gather(Tensor& whole);
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

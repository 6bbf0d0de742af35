// The trained parameters, their layout in flat buffers, and the share of them that each process
// keeps in f32 (Rajbhandari et al. 2020, arXiv 1910.02054, stage 1).
//
// Two buffers, matrices and vectors, hold all parameters one after another: one gradient norm and
// one AdamW update a step instead of one per tensor. A buffer is cut into buckets of consecutive
// parameters, and a bucket into one share for each process. A process holds the f32 master values
// and the optimizer's moments of its own shares, all parameters in the dtype that forward passes
// read, and all gradients of its micro-batches in f32 (gradients.h).
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "train/processes.h"
#include "train/torch.h"

namespace kvcast::train {

/// How a parameter starts when no weights are given.
enum class Init {
  kOnes,     ///< norms
  kZeros,    ///< biases
  kNormal,   ///< N(0, scale^2)
  kUniform,  ///< U(-scale, scale): PyTorch's default linear initialisation
};

struct ParameterSpec {
  std::string name;
  std::vector<int64_t> shape;
  Init init = Init::kNormal;
  double scale = 0.02;

  [[nodiscard]] int64_t size() const;
  /// Weight decay applies to matrices only (method §4).
  [[nodiscard]] bool is_matrix() const { return shape.size() > 1; }
};

/// `specs` with `prefix` put before every name.
std::vector<ParameterSpec> with_prefix(std::string_view prefix, std::vector<ParameterSpec> specs);

/// Fresh values on the CPU, deterministic by seed and independent of the order of creation: every
/// tensor has a generator of its own, seeded by (seed, name).
TensorMap initial_values(const std::vector<ParameterSpec>& specs, uint64_t seed);

/// One flat tensor for the matrices and one for the vectors.
using Buffers = std::array<Tensor, 2>;

class ParameterLayout {
 public:
  /// `bucket_bytes`: of f32 values; a parameter is never split.
  ParameterLayout(std::vector<ParameterSpec> specs, int64_t shares, int64_t bucket_bytes);

  struct Slot {
    size_t buffer;   ///< 0: matrices, 1: vectors
    int64_t offset;  ///< in elements
    size_t bucket;   ///< index into buckets()
    std::vector<int64_t> shape;
  };
  struct Bucket {
    size_t buffer;
    int64_t offset, length;  ///< in elements; the length is a multiple of the shares
    size_t members;          ///< parameters
  };

  [[nodiscard]] const std::vector<ParameterSpec>& specs() const { return specs_; }
  [[nodiscard]] const std::map<std::string, Slot, std::less<>>& slots() const { return slots_; }
  /// In the order in which a backward pass leaves them behind: from the last parameter to the
  /// first, the vectors' only one at the end.
  [[nodiscard]] const std::vector<Bucket>& buckets() const { return buckets_; }
  [[nodiscard]] int64_t shares() const { return shares_; }
  /// Elements of a whole buffer, padding included.
  [[nodiscard]] int64_t size(size_t buffer) const { return sizes_[buffer]; }

  /// A parameter's part of whole buffers.
  [[nodiscard]] static Tensor part(const Buffers& buffers, const Slot& slot);
  /// A bucket's part of whole buffers, and of buffers that hold one share of each.
  [[nodiscard]] static Tensor part(const Buffers& buffers, const Bucket& bucket);
  [[nodiscard]] Tensor share_part(const Buffers& shares, const Bucket& bucket) const;
  /// Every parameter's part of whole buffers.
  [[nodiscard]] TensorMap split(const Buffers& buffers) const;

 private:
  std::vector<ParameterSpec> specs_;
  int64_t shares_;
  std::array<int64_t, 2> sizes_{};
  std::map<std::string, Slot, std::less<>> slots_;
  std::vector<Bucket> buckets_;
};

struct ParameterOptions {
  at::ScalarType compute = at::kFloat;  ///< what forward passes read
  Processes* processes = nullptr;       ///< that share the master values; none: this one alone
  int64_t bucket_bytes = int64_t{32} << 20;
};

class FlatParameters {
 public:
  /// Copies `values` (one for each spec's name) to `device`.
  FlatParameters(std::vector<ParameterSpec> specs, const TensorMap& values,
                 const at::Device& device, const ParameterOptions& options = {});

  [[nodiscard]] const ParameterLayout& layout() const { return layout_; }
  [[nodiscard]] Processes& processes() const { return processes_; }
  [[nodiscard]] int64_t count() const;  ///< of parameters

  /// All parameters in the compute dtype, whole buffers.
  [[nodiscard]] const Buffers& compute() const { return compute_; }
  /// This process's shares in f32; what an optimizer changes before publish().
  [[nodiscard]] const Buffers& master() const { return master_; }

  /// Overwrites all values; `values` must have one of the right shape for each name.
  void assign(const TensorMap& values);
  /// After master() has changed, in every process: compute() follows.
  void publish();

  /// This process's shares of values by name, into buffers like master().
  void take_shares(const TensorMap& values, const Buffers& shares) const;
  /// The inverse, in every process: all processes' shares by name; empty but in the first. Of one
  /// process alone they are views of `shares`.
  [[nodiscard]] TensorMap gathered(const Buffers& shares) const;
  /// Zeros like master().
  [[nodiscard]] Buffers zero_shares() const;

 private:
  [[nodiscard]] Tensor own_share(const Tensor& bucket) const;

  Processes alone_;
  Processes& processes_;
  ParameterLayout layout_;
  Buffers compute_, master_;
};

}  // namespace kvcast::train

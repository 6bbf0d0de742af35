// The normaliser of a softmax over one row, by one block of threads.
#pragma once

#include <cfloat>

#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {

/// The running maximum of what was seen and the sum of exp(x - maximum).
struct Softmax {
  float maximum = -FLT_MAX;
  float sum = 0.0f;

  __device__ void add(const Values<kVector>& values) {
    float next = maximum;
#pragma unroll
    for (int k = 0; k < kVector; ++k) next = fmaxf(next, values.v[k]);
    sum *= __expf(maximum - next);
#pragma unroll
    for (int k = 0; k < kVector; ++k) sum += __expf(values.v[k] - next);
    maximum = next;
  }
  __device__ float log_sum_exp() const { return maximum + logf(sum); }
};

__device__ inline Softmax merged(const Softmax& a, const Softmax& b) {
  const float maximum = fmaxf(a.maximum, b.maximum);
  return {maximum, a.sum * __expf(a.maximum - maximum) + b.sum * __expf(b.maximum - maximum)};
}

/// What all `Threads` of a block saw. `of_warp`: shared memory of its own for each use.
template <int Threads>
__device__ Softmax block_merged(Softmax mine, Softmax* of_warp) {
  constexpr int kWarps = Threads / kWarp;
  const auto warp_merged = [](Softmax x) {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const Softmax other{__shfl_xor_sync(0xffffffffu, x.maximum, step),
                          __shfl_xor_sync(0xffffffffu, x.sum, step)};
      x = merged(x, other);
    }
    return x;
  };
  mine = warp_merged(mine);
  if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = mine;
  __syncthreads();
  const int lane = threadIdx.x % kWarp;
  return warp_merged(lane < kWarps ? of_warp[lane] : Softmax{});
}

}  // namespace kvcast::train::cuda

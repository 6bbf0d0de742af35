#include <cfloat>

#include "train/cuda/kernels.h"
#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

/// The running maximum of what was seen and the sum of exp(x - maximum).
struct Softmax {
  float maximum = -FLT_MAX;
  float sum = 0.0f;
};

__device__ Softmax merged(const Softmax& a, const Softmax& b) {
  const float maximum = fmaxf(a.maximum, b.maximum);
  return {maximum, a.sum * __expf(a.maximum - maximum) + b.sum * __expf(b.maximum - maximum)};
}

__device__ Softmax block_merged(Softmax mine) {
  __shared__ Softmax of_warp[kWarps];
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

/// One block a row; the second pass over the row finds it in the L2 cache.
__global__ void kernel(Bf16* __restrict__ logits, const int64_t* __restrict__ targets,
                       const float* __restrict__ row_weights, float z_loss, bool write_gradient,
                       float* __restrict__ nll, float* __restrict__ log_sum_exp, int vocab) {
  const int64_t row = blockIdx.x;
  Bf16* const x = logits + row * vocab;
  const int64_t target = targets[row];
  Softmax mine;
  for (int column = threadIdx.x * kVector; column < vocab; column += kThreads * kVector) {
    const auto values = load<kVector>(x + column);
    float maximum = mine.maximum;
#pragma unroll
    for (int k = 0; k < kVector; ++k) maximum = fmaxf(maximum, values.v[k]);
    float sum = mine.sum * __expf(mine.maximum - maximum);
#pragma unroll
    for (int k = 0; k < kVector; ++k) sum += __expf(values.v[k] - maximum);
    mine = {maximum, sum};
  }
  const float target_logit = bf16_at(x + target);
  const Softmax whole = block_merged(mine);  // also: every thread has read the target's logit
  const float lse = whole.maximum + logf(whole.sum);
  if (threadIdx.x == 0) {
    nll[row] = lse - target_logit;
    log_sum_exp[row] = lse;
  }
  if (!write_gradient) return;
  const float weight = row_weights[row];
  const float scale = weight * (1.0f + 2.0f * z_loss * lse);
  for (int column = threadIdx.x * kVector; column < vocab; column += kThreads * kVector) {
    auto values = load<kVector>(x + column);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      values.v[k] = scale * __expf(values.v[k] - lse) - (column + k == target ? weight : 0.0f);
    }
    store(x + column, values);
  }
}

}  // namespace

void cross_entropy(Bf16* logits, const int64_t* targets, const float* row_weights, float z_loss,
                   bool write_gradient, float* nll, float* log_sum_exp, int64_t rows, int vocab,
                   cudaStream_t stream) {
  kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
      logits, targets, row_weights, z_loss, write_gradient, nll, log_sum_exp, vocab);
}

}  // namespace kvcast::train::cuda

#include "train/cuda/kernels.h"
#include "train/cuda/softmax.cuh"
#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {
namespace {

constexpr int kThreads = 512;

/// One block a row; the second pass over the row finds it in the L2 cache.
__global__ void kernel(Bf16* __restrict__ logits, const int64_t* __restrict__ targets,
                       const float* __restrict__ row_weights, float z_loss, bool write_gradient,
                       float* __restrict__ nll, float* __restrict__ log_sum_exp, int vocab) {
  // Bytes, since shared memory has no constructors.
  __shared__ alignas(Softmax) unsigned char shared[kThreads / kWarp * sizeof(Softmax)];
  const int64_t row = blockIdx.x;
  Bf16* const x = logits + row * vocab;
  const int64_t target = targets[row];
  Softmax mine;
  for (int column = threadIdx.x * kVector; column < vocab; column += kThreads * kVector) {
    mine.add(load<kVector>(x + column));
  }
  const float target_logit = bf16_at(x + target);
  // Also: every thread has read the target's logit before one is overwritten.
  const float lse = block_merged<kThreads>(mine, reinterpret_cast<Softmax*>(shared)).log_sum_exp();
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

#include "train/cuda/kernels.h"
#include "train/cuda/softmax.cuh"
#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

struct Out {
  float* __restrict__ nll;
  float* __restrict__ log_sum_exp;
  float* __restrict__ kl;
};

/// One block a row; the second pass over the row finds it in the L2 cache.
__global__ void kernel(Bf16* __restrict__ student, const Bf16* __restrict__ teacher,
                       const int64_t* __restrict__ targets, const float* __restrict__ row_weights,
                       DistillationWeights lambda, bool write_gradient, Out out, int vocab) {
  // Not initialised by constructors, which shared memory cannot have.
  __shared__ alignas(Softmax) unsigned char shared[2][kWarps * sizeof(Softmax)];
  __shared__ float kl_of_warp[kWarps];
  const int64_t row = blockIdx.x;
  Bf16* const q = student + row * vocab;
  const Bf16* const p = teacher + row * vocab;
  const int64_t target = targets[row];
  Softmax q_mine, p_mine;
  for (int column = threadIdx.x * kVector; column < vocab; column += kThreads * kVector) {
    q_mine.add(load<kVector>(q + column));
    p_mine.add(load<kVector>(p + column));
  }
  const float target_logit = bf16_at(q + target);
  // Also: every thread has read the target's logit before one is overwritten.
  const float q_lse =
      block_merged<kThreads>(q_mine, reinterpret_cast<Softmax*>(shared[0])).log_sum_exp();
  const float p_lse =
      block_merged<kThreads>(p_mine, reinterpret_cast<Softmax*>(shared[1])).log_sum_exp();

  const float weight = write_gradient ? row_weights[row] : 0.0f;
  const float of_q =
      weight * (lambda.cross_entropy * (1.0f + 2.0f * lambda.z_loss * q_lse) + lambda.kl);
  const float of_p = weight * lambda.kl, of_target = weight * lambda.cross_entropy;
  float kl = 0.0f;
  for (int column = threadIdx.x * kVector; column < vocab; column += kThreads * kVector) {
    auto values = load<kVector>(q + column);
    const auto taught = load<kVector>(p + column);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const float log_q = values.v[k] - q_lse, log_p = taught.v[k] - p_lse;
      const float probability = __expf(log_p);
      kl += probability * (log_p - log_q);
      values.v[k] =
          of_q * __expf(log_q) - of_p * probability - (column + k == target ? of_target : 0.0f);
    }
    if (write_gradient) store(q + column, values);
  }
  kl = lane_sum(kl);
  if (threadIdx.x % kWarp == 0) kl_of_warp[threadIdx.x / kWarp] = kl;
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  kl = lane_sum(threadIdx.x < kWarps ? kl_of_warp[threadIdx.x] : 0.0f);
  if (threadIdx.x != 0) return;
  out.nll[row] = q_lse - target_logit;
  out.log_sum_exp[row] = q_lse;
  out.kl[row] = kl;
}

}  // namespace

void distillation(Bf16* student, const Bf16* teacher, const int64_t* targets,
                  const float* row_weights, const DistillationWeights& lambda, bool write_gradient,
                  float* nll, float* log_sum_exp, float* kl, int64_t rows, int vocab,
                  cudaStream_t stream) {
  kernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(student, teacher, targets,
                                                               row_weights, lambda, write_gradient,
                                                               {nll, log_sum_exp, kl}, vocab);
}

}  // namespace kvcast::train::cuda

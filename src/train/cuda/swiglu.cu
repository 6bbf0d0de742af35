#include "train/cuda/kernels.h"
#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

/// Eight outputs a thread.
__global__ void forward_kernel(const Bf16* __restrict__ gate_up, Bf16* __restrict__ out,
                               int64_t vectors, int width) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= vectors) return;
  const int per_row = width / kVector;
  const int64_t row = at / per_row;
  const int64_t gate_at = row * 2 * width + at % per_row * kVector;
  const auto gate = load<kVector>(gate_up + gate_at);
  auto up = load<kVector>(gate_up + gate_at + width);
#pragma unroll
  for (int k = 0; k < kVector; ++k) up.v[k] *= gate.v[k] * sigmoid(gate.v[k]);
  store(out + at * kVector, up);
}

__global__ void backward_kernel(const Bf16* __restrict__ grad_out, const Bf16* __restrict__ gate_up,
                                Bf16* __restrict__ grad_gate_up, int64_t vectors, int width) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= vectors) return;
  const int per_row = width / kVector;
  const int64_t row = at / per_row;
  const int64_t gate_at = row * 2 * width + at % per_row * kVector;
  auto gate = load<kVector>(gate_up + gate_at);
  auto up = load<kVector>(gate_up + gate_at + width);
  const auto grad = load<kVector>(grad_out + at * kVector);
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    const float s = sigmoid(gate.v[k]), silu = gate.v[k] * s;
    // d silu = s + silu (1 - s)
    gate.v[k] = grad.v[k] * up.v[k] * (s + silu * (1.0f - s));
    up.v[k] = grad.v[k] * silu;
  }
  store(grad_gate_up + gate_at, gate);
  store(grad_gate_up + gate_at + width, up);
}

unsigned blocks_for(int64_t vectors) {
  return static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
}

}  // namespace

void swiglu_forward(const Bf16* gate_up, Bf16* out, int64_t rows, int width, cudaStream_t stream) {
  const int64_t vectors = rows * (width / kVector);
  forward_kernel<<<blocks_for(vectors), kThreads, 0, stream>>>(gate_up, out, vectors, width);
}

void swiglu_backward(const Bf16* grad_out, const Bf16* gate_up, Bf16* grad_gate_up, int64_t rows,
                     int width, cudaStream_t stream) {
  const int64_t vectors = rows * (width / kVector);
  backward_kernel<<<blocks_for(vectors), kThreads, 0, stream>>>(grad_out, gate_up, grad_gate_up,
                                                                vectors, width);
}

}  // namespace kvcast::train::cuda

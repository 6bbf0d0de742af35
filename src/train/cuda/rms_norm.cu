#include <algorithm>

#include "train/cuda/kernels.h"
#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {
namespace {

constexpr int kWarpsPerBlock = 8;
constexpr int kBackwardBlocks = 792;  // 6 for each multiprocessor of an H100 or H200

/// One warp a row; lane l holds vectors l, l + 32, ... of it (`Vectors` of them at most).
template <int Vectors>
__global__ void forward_kernel(const Bf16* __restrict__ x, const Bf16* __restrict__ delta,
                               const Bf16* __restrict__ weight, Bf16* __restrict__ sum,
                               Bf16* __restrict__ normed, float* __restrict__ inverse_rms,
                               int64_t rows, int width, float eps) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int64_t start = row * width;
  Values<kVector> values[Vectors];
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < Vectors; ++i) {
    const int column = (i * kWarp + lane) * kVector;
    if (column >= width) continue;
    values[i] = load<kVector>(x + start + column);
    if (delta != nullptr) {
      const auto added = load<kVector>(delta + start + column);
#pragma unroll
      for (int k = 0; k < kVector; ++k) values[i].v[k] = rounded(values[i].v[k] + added.v[k]);
      store(sum + start + column, values[i]);
    }
#pragma unroll
    for (int k = 0; k < kVector; ++k) squares += values[i].v[k] * values[i].v[k];
  }
  const float inverse = rsqrtf(lane_sum(squares) / static_cast<float>(width) + eps);
#pragma unroll
  for (int i = 0; i < Vectors; ++i) {
    const int column = (i * kWarp + lane) * kVector;
    if (column >= width) continue;
    const auto w = load<kVector>(weight + column);
#pragma unroll
    for (int k = 0; k < kVector; ++k) values[i].v[k] *= inverse * w.v[k];
    store(normed + start + column, values[i]);
  }
  if (lane == 0) inverse_rms[row] = inverse;
}

/// With s the row, r = 1 / rms(s), g = grad_normed * weight:
/// grad_s = r g - s r^3 mean(g s), grad_weight = sum over rows of grad_normed s r.
///
/// A lane keeps its part of the three rows as the 16-byte words that were loaded: as floats they
/// would take twice the registers, and the kernel lives of many rows in flight.
template <int Vectors>
__global__ void __launch_bounds__(kWarpsPerBlock* kWarp, Vectors <= 3 ? 3 : 1)
    backward_kernel(const Bf16* __restrict__ grad_normed, const Bf16* __restrict__ grad_residual,
                    const Bf16* __restrict__ sum, const Bf16* __restrict__ weight,
                    const float* __restrict__ inverse_rms, Bf16* __restrict__ grad_sum,
                    float* __restrict__ weight_partials, int64_t rows, int width) {
  extern __shared__ float shared_partials[];  // [width]
  const int lane = threadIdx.x % kWarp;
  for (int i = threadIdx.x; i < width; i += blockDim.x) shared_partials[i] = 0.0f;
  __syncthreads();

  Values<kVector> grad_weight[Vectors] = {};
  for (int64_t row = int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / kWarp; row < rows;
       row += int64_t{gridDim.x} * kWarpsPerBlock) {
    const int64_t start = row * width;
    const float inverse = inverse_rms[row];
    uint4 s_bits[Vectors], g_bits[Vectors], residual_bits[Vectors];
#pragma unroll
    for (int i = 0; i < Vectors; ++i) {
      const int column = (i * kWarp + lane) * kVector;
      if (column >= width) continue;
      s_bits[i] = load_bits(sum + start + column);
      g_bits[i] = load_bits(grad_normed + start + column);
      residual_bits[i] = make_uint4(0, 0, 0, 0);
      if (grad_residual != nullptr) residual_bits[i] = load_bits(grad_residual + start + column);
    }
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < Vectors; ++i) {
      const int column = (i * kWarp + lane) * kVector;
      if (column >= width) continue;
      const auto s = unpacked(s_bits[i]), g = unpacked(g_bits[i]);
      const auto w = load<kVector>(weight + column);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        grad_weight[i].v[k] += g.v[k] * s.v[k] * inverse;
        dot += g.v[k] * w.v[k] * s.v[k];
      }
    }
    const float along = lane_sum(dot) * inverse * inverse * inverse / static_cast<float>(width);
#pragma unroll
    for (int i = 0; i < Vectors; ++i) {
      const int column = (i * kWarp + lane) * kVector;
      if (column >= width) continue;
      const auto s = unpacked(s_bits[i]), g = unpacked(g_bits[i]);
      const auto w = load<kVector>(weight + column);
      auto out = unpacked(residual_bits[i]);
#pragma unroll
      for (int k = 0; k < kVector; ++k) {
        out.v[k] += inverse * g.v[k] * w.v[k] - along * s.v[k];
      }
      store(grad_sum + start + column, out);
    }
  }
#pragma unroll
  for (int i = 0; i < Vectors; ++i) {
    const int column = (i * kWarp + lane) * kVector;
    if (column >= width) continue;
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      atomicAdd(&shared_partials[column + k], grad_weight[i].v[k]);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    weight_partials[int64_t{blockIdx.x} * width + i] = shared_partials[i];
  }
}

/// Calls `run` with the least compile-time number of vectors a lane that covers `width`.
template <typename Run>
void with_vectors(int width, const Run& run) {
  const int needed = (width + kWarp * kVector - 1) / (kWarp * kVector);
  if (needed <= 1) return run(std::integral_constant<int, 1>());
  if (needed <= 2) return run(std::integral_constant<int, 2>());
  if (needed <= 3) return run(std::integral_constant<int, 3>());
  if (needed <= 4) return run(std::integral_constant<int, 4>());
  if (needed <= 6) return run(std::integral_constant<int, 6>());
  if (needed <= 8) return run(std::integral_constant<int, 8>());
  if (needed <= 12) return run(std::integral_constant<int, 12>());
  run(std::integral_constant<int, 16>());
}

}  // namespace

void rms_norm_forward(const Bf16* x, const Bf16* delta, const Bf16* weight, Bf16* sum, Bf16* normed,
                      float* inverse_rms, int64_t rows, int width, float eps, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((rows + kWarpsPerBlock - 1) / kWarpsPerBlock);
  with_vectors(width, [&](auto vectors) {
    forward_kernel<vectors><<<blocks, kWarpsPerBlock * kWarp, 0, stream>>>(
        x, delta, weight, sum, normed, inverse_rms, rows, width, eps);
  });
}

int rms_norm_backward_blocks(int64_t rows) {
  return static_cast<int>(
      std::min<int64_t>(kBackwardBlocks, (rows + kWarpsPerBlock - 1) / kWarpsPerBlock));
}

void rms_norm_backward(const Bf16* grad_normed, const Bf16* grad_residual, const Bf16* sum,
                       const Bf16* weight, const float* inverse_rms, Bf16* grad_sum,
                       float* weight_partials, int64_t rows, int width, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rms_norm_backward_blocks(rows));
  const size_t shared_bytes = static_cast<size_t>(width) * sizeof(float);
  with_vectors(width, [&](auto vectors) {
    backward_kernel<vectors><<<blocks, kWarpsPerBlock * kWarp, shared_bytes, stream>>>(
        grad_normed, grad_residual, sum, weight, inverse_rms, grad_sum, weight_partials, rows,
        width);
  });
}

}  // namespace kvcast::train::cuda

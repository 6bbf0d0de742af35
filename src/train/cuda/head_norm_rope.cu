#include <algorithm>

#include "train/cuda/kernels.h"
#include "train/cuda/vector.cuh"

namespace kvcast::train::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHalfVector = 4;  // values that a lane holds of each half of a head
constexpr int64_t kMaxBlocks = 2112;

/// One lane's part of a head: `low` of the first half, `high` at the same place of the second.
struct Pair {
  Values<kHalfVector> low, high;
};

template <int HeadDim>
__device__ Pair load_pair(const Bf16* head, int lane) {
  return {load<kHalfVector>(head + lane * kHalfVector),
          load<kHalfVector>(head + HeadDim / 2 + lane * kHalfVector)};
}

template <int HeadDim>
__device__ void store_pair(Bf16* head, int lane, const Pair& pair) {
  store(head + lane * kHalfVector, pair.low);
  store(head + HeadDim / 2 + lane * kHalfVector, pair.high);
}

/// (low, high) turned by sign * angle of this row and place.
template <int HeadDim>
__device__ void rotate(Pair& pair, const Rope& rope, int64_t row, int lane, float sign) {
  if (rope.cos == nullptr) return;
  const int64_t at = (rope.first + row % rope.tokens) * (HeadDim / 2) + int64_t{lane} * kHalfVector;
  const float4 cos4 = *reinterpret_cast<const float4*>(rope.cos + at);
  const float4 sin4 = *reinterpret_cast<const float4*>(rope.sin + at);
  const float cos[kHalfVector] = {cos4.x, cos4.y, cos4.z, cos4.w};
  const float sin[kHalfVector] = {sin4.x, sin4.y, sin4.z, sin4.w};
#pragma unroll
  for (int k = 0; k < kHalfVector; ++k) {
    const float low = pair.low.v[k], high = pair.high.v[k], s = sign * sin[k];
    pair.low.v[k] = low * cos[k] - high * s;
    pair.high.v[k] = high * cos[k] + low * s;
  }
}

template <int Lanes>
__device__ float dot(const Pair& a, const Pair& b) {
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < kHalfVector; ++k) {
    sum += a.low.v[k] * b.low.v[k] + a.high.v[k] * b.high.v[k];
  }
  return lane_sum<Lanes>(sum);
}

/// HeadDim / 8 lanes a head. All lanes of a warp stay in the loop, as lane_sum needs them.
template <int HeadDim>
__global__ void forward_kernel(const Bf16* __restrict__ x, Heads shape,
                               const Bf16* __restrict__ weight, float eps, Rope rope,
                               Bf16* __restrict__ out) {
  constexpr int kLanes = HeadDim / (2 * kHalfVector);
  const int lane = threadIdx.x % kLanes;
  const int64_t item = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  const bool active = item < shape.rows * shape.heads;
  const int64_t row = active ? item / shape.heads : 0;
  const int64_t head = active ? item % shape.heads : 0;
  Pair pair = load_pair<HeadDim>(x + row * shape.row_stride + head * HeadDim, lane);
  if (weight != nullptr) {
    const float inverse = rsqrtf(dot<kLanes>(pair, pair) / HeadDim + eps);
    const Pair w = load_pair<HeadDim>(weight, lane);
#pragma unroll
    for (int k = 0; k < kHalfVector; ++k) {
      pair.low.v[k] *= inverse * w.low.v[k];
      pair.high.v[k] *= inverse * w.high.v[k];
    }
  }
  rotate<HeadDim>(pair, rope, row, lane, 1.0f);
  if (active) store_pair<HeadDim>(out + item * HeadDim, lane, pair);
}

template <int HeadDim>
__global__ void backward_kernel(const Bf16* __restrict__ grad_out, int64_t grad_row_stride,
                                const Bf16* __restrict__ x, Heads shape,
                                const Bf16* __restrict__ weight, float eps, Rope rope,
                                Bf16* __restrict__ grad_x, float* __restrict__ weight_partials) {
  constexpr int kLanes = HeadDim / (2 * kHalfVector);
  constexpr int kItemsPerBlock = kThreads / kLanes;
  __shared__ float shared_partials[HeadDim];
  const int lane = threadIdx.x % kLanes;
  const int64_t items = shape.rows * shape.heads;
  Pair w{}, grad_weight{};
  if (weight != nullptr) w = load_pair<HeadDim>(weight, lane);
  for (int i = threadIdx.x; i < HeadDim; i += kThreads) shared_partials[i] = 0.0f;
  __syncthreads();

  for (int64_t first = int64_t{blockIdx.x} * kItemsPerBlock; first < items;
       first += int64_t{gridDim.x} * kItemsPerBlock) {
    const int64_t item = first + threadIdx.x / kLanes;
    const bool active = item < items;
    const int64_t row = active ? item / shape.heads : 0;
    const int64_t head = active ? item % shape.heads : 0;
    Pair grad = load_pair<HeadDim>(grad_out + row * grad_row_stride + head * HeadDim, lane);
    rotate<HeadDim>(grad, rope, row, lane, -1.0f);
    if (weight != nullptr) {
      const Pair s = load_pair<HeadDim>(x + row * shape.row_stride + head * HeadDim, lane);
      const float inverse = rsqrtf(dot<kLanes>(s, s) / HeadDim + eps);
#pragma unroll
      for (int k = 0; k < kHalfVector; ++k) {
        if (active) {
          grad_weight.low.v[k] += grad.low.v[k] * s.low.v[k] * inverse;
          grad_weight.high.v[k] += grad.high.v[k] * s.high.v[k] * inverse;
        }
        grad.low.v[k] *= w.low.v[k];
        grad.high.v[k] *= w.high.v[k];
      }
      const float along = dot<kLanes>(grad, s) * inverse * inverse * inverse / HeadDim;
#pragma unroll
      for (int k = 0; k < kHalfVector; ++k) {
        grad.low.v[k] = inverse * grad.low.v[k] - along * s.low.v[k];
        grad.high.v[k] = inverse * grad.high.v[k] - along * s.high.v[k];
      }
    }
    if (active) store_pair<HeadDim>(grad_x + item * HeadDim, lane, grad);
  }
  if (weight == nullptr) return;
#pragma unroll
  for (int k = 0; k < kHalfVector; ++k) {
    atomicAdd(&shared_partials[lane * kHalfVector + k], grad_weight.low.v[k]);
    atomicAdd(&shared_partials[HeadDim / 2 + lane * kHalfVector + k], grad_weight.high.v[k]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < HeadDim; i += kThreads) {
    weight_partials[int64_t{blockIdx.x} * HeadDim + i] = shared_partials[i];
  }
}

template <typename Run>
void with_head_dim(int head_dim, const Run& run) {
  switch (head_dim) {
    case 8:
      return run(std::integral_constant<int, 8>());
    case 16:
      return run(std::integral_constant<int, 16>());
    case 32:
      return run(std::integral_constant<int, 32>());
    case 64:
      return run(std::integral_constant<int, 64>());
    case 128:
      return run(std::integral_constant<int, 128>());
    default:
      return run(std::integral_constant<int, 256>());
  }
}

int64_t blocks_for(const Heads& shape) {
  const int64_t threads = shape.rows * shape.heads * (shape.head_dim / (2 * kHalfVector));
  return (threads + kThreads - 1) / kThreads;
}

}  // namespace

void head_norm_rope_forward(const Bf16* x, const Heads& shape, const Bf16* weight, float eps,
                            const Rope& rope, Bf16* out, cudaStream_t stream) {
  with_head_dim(shape.head_dim, [&](auto head_dim) {
    forward_kernel<head_dim><<<static_cast<unsigned>(blocks_for(shape)), kThreads, 0, stream>>>(
        x, shape, weight, eps, rope, out);
  });
}

int head_norm_rope_backward_blocks(const Heads& shape) {
  return static_cast<int>(std::min(kMaxBlocks, blocks_for(shape)));
}

void head_norm_rope_backward(const Bf16* grad_out, int64_t grad_row_stride, const Bf16* x,
                             const Heads& shape, const Bf16* weight, float eps, const Rope& rope,
                             Bf16* grad_x, float* weight_partials, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(head_norm_rope_backward_blocks(shape));
  with_head_dim(shape.head_dim, [&](auto head_dim) {
    backward_kernel<head_dim><<<blocks, kThreads, 0, stream>>>(
        grad_out, grad_row_stride, x, shape, weight, eps, rope, grad_x, weight_partials);
  });
}

}  // namespace kvcast::train::cuda

// Eight bf16 at a time, computed in f32; sums over a warp and a block.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace kvcast::train::cuda {

constexpr int kWarp = 32;
constexpr int kVector = 8;  // bf16 in 16 bytes

/// N consecutive values; N * 2 bytes are loaded and stored in one access (N = 4 or 8).
template <int N>
struct Values {
  float v[N];
};

template <int N>
struct Packed;
template <>
struct Packed<8> {
  using Type = uint4;
};
template <>
struct Packed<4> {
  using Type = uint2;
};

template <int N>
__device__ Values<N> load(const uint16_t* from) {
  using Type = typename Packed<N>::Type;
  const Type bits = *reinterpret_cast<const Type*>(from);
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
  Values<N> out;
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    out.v[2 * i] = pair.x;
    out.v[2 * i + 1] = pair.y;
  }
  return out;
}

__device__ inline uint4 load_bits(const uint16_t* from) {
  return *reinterpret_cast<const uint4*>(from);
}

__device__ inline Values<8> unpacked(const uint4& bits) {
  return load<8>(reinterpret_cast<const uint16_t*>(&bits));
}

template <int N>
__device__ void store(uint16_t* to, const Values<N>& values) {
  using Type = typename Packed<N>::Type;
  Type bits;
  auto* pairs = reinterpret_cast<__nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    pairs[i] = __floats2bfloat162_rn(values.v[2 * i], values.v[2 * i + 1]);
  }
  *reinterpret_cast<Type*>(to) = bits;
}

/// The value that storing `x` as bf16 leaves.
__device__ inline float rounded(float x) { return __bfloat162float(__float2bfloat16_rn(x)); }

__device__ inline float bf16_at(const uint16_t* p) {
  return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(p));
}

/// Sum over groups of `lanes` neighbouring lanes (a power of two), in every lane.
template <int Lanes = kWarp>
__device__ float lane_sum(float x) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

}  // namespace kvcast::train::cuda

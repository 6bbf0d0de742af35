// What a config may claim: far above any model that exists, low enough that no product of two or
// three of them overflows and no table sized by them (RoPE: context * head_dim) is absurd.
#pragma once

#include <cstdint>

namespace kvcast {

inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxModelDim = 1 << 17;
inline constexpr int64_t kMaxHeadDim = 512;
inline constexpr int64_t kMaxHeads = 2048;
inline constexpr int64_t kMaxFfnDim = 1 << 20;
inline constexpr int64_t kMaxLayers = 1024;
inline constexpr int64_t kMaxContext = 1 << 20;

}  // namespace kvcast

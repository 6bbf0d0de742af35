#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace kvcast {

/// A hash of 64 bits against damage and mistakes, not against attackers: four lanes of 8 bytes, so
/// that gigabytes take as long as they take to come from memory. Part of a file format: it stays.
inline uint64_t hash64(std::span<const std::byte> bytes, uint64_t seed = 0) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15U, kMix = 0xD6E8FEB86659FD93U;
  const auto mix = [](uint64_t h) {
    h ^= h >> 32U;
    h *= kMix;
    return h ^ (h >> 29U);
  };
  const auto word = [&](size_t at, size_t count) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, count);
    return value;
  };
  uint64_t lanes[4] = {seed, seed + kOdd, seed + 2 * kOdd, seed + 3 * kOdd};
  size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    for (size_t lane = 0; lane < 4; ++lane) {
      uint64_t& h = lanes[lane];
      h = (h ^ word(at + 8 * lane, 8)) * kMix;
      h ^= h >> 32U;
    }
  }
  uint64_t hash = mix(bytes.size() + seed);
  for (const uint64_t lane : lanes) hash = mix(hash ^ lane) * kOdd;
  for (; at < bytes.size(); at += 8) {
    hash = mix(hash ^ word(at, bytes.size() - at < 8 ? bytes.size() - at : 8)) * kOdd;
  }
  return mix(hash);
}

template <typename T>
uint64_t hash64_of(std::span<const T> values, uint64_t seed = 0) {
  return hash64(std::as_bytes(values), seed);
}

}  // namespace kvcast

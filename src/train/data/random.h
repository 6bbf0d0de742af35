// Stateless randomness: everything random in training is a function of the recipe's seed and of
// what it is drawn for, so a resumed run continues exactly and shards do not depend on threads.
#pragma once

#include <cstdint>
#include <string_view>

namespace kvcast::train {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection whose output looks random.
constexpr uint64_t scramble(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

constexpr uint64_t mix(uint64_t a, uint64_t b) { return scramble(scramble(a) ^ b); }

/// FNV-1a.
constexpr uint64_t hash_text(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

/// True for a `fraction` of all values.
constexpr bool falls_in_fraction(uint64_t hash, double fraction) {
  return static_cast<double>(hash >> 11) * 0x1p-53 < fraction;
}

/// The image of `index` under a pseudorandom permutation of [0, n): a four-round Feistel network
/// over the next even number of bits, walked until it lands inside.
constexpr uint64_t permute(uint64_t index, uint64_t n, uint64_t seed) {
  int half_bits = 1;
  while (half_bits < 32 && (uint64_t{1} << (2 * half_bits)) < n) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  do {
    uint64_t left = index >> half_bits, right = index & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t next = left ^ (mix(seed + round, right) & mask);
      left = right;
      right = next;
    }
    index = left << half_bits | right;
  } while (index >= n);
  return index;
}

}  // namespace kvcast::train

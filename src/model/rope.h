#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcast {

/// Cosines and sines of RoPE's angles, position * frequencies[j], for any position below
/// `positions`. Two small tables, of multiples of 1,024 positions and of the rest, are combined by
/// the addition theorem in double: a row costs a few multiplications, and the memory grows with
/// positions / 1,024, whatever context a config claims. Immutable.
class RopeTable {
 public:
  RopeTable() = default;
  /// `frequencies` [head_dim / 2]: see Rope.
  RopeTable(std::span<const double> frequencies, int64_t positions);

  /// One row for each position: cosines and sines, [positions.size(), head_dim / 2].
  void fill(std::span<const int64_t> positions, float* cosines, float* sines) const;

  [[nodiscard]] size_t bytes() const { return (coarse_.size() + fine_.size()) * sizeof(Angle); }

 private:
  struct Angle {
    double cosine, sine;
  };
  int64_t half_ = 0;           // head_dim / 2
  std::vector<Angle> coarse_;  // [ceil(positions / 1,024), half]
  std::vector<Angle> fine_;    // [1,024 or fewer, half]
};

}  // namespace kvcast

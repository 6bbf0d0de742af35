#include "model/rope.h"

#include <algorithm>
#include <cmath>

namespace kvcast {
namespace {

constexpr int64_t kStep = 1024;

}  // namespace

RopeTable::RopeTable(std::span<const double> frequencies, int64_t positions)
    : half_(static_cast<int64_t>(frequencies.size())) {
  const auto make = [&](int64_t rows, int64_t step) {
    std::vector<Angle> table(static_cast<size_t>(rows * half_));
    for (int64_t j = 0; j < half_; ++j) {
      for (int64_t row = 0; row < rows; ++row) {
        const double angle = static_cast<double>(row * step) * frequencies[j];
        table[static_cast<size_t>(row * half_ + j)] = {std::cos(angle), std::sin(angle)};
      }
    }
    return table;
  };
  coarse_ = make((positions + kStep - 1) / kStep, kStep);
  fine_ = make(std::min(positions, kStep), 1);
}

void RopeTable::fill(std::span<const int64_t> positions, float* cosines, float* sines) const {
  for (const int64_t position : positions) {
    const Angle* const x = coarse_.data() + position / kStep * half_;
    const Angle* const y = fine_.data() + position % kStep * half_;
    for (int64_t j = 0; j < half_; ++j) {
      cosines[j] = static_cast<float>(x[j].cosine * y[j].cosine - x[j].sine * y[j].sine);
      sines[j] = static_cast<float>(x[j].sine * y[j].cosine + x[j].cosine * y[j].sine);
    }
    cosines += half_;
    sines += half_;
  }
}

}  // namespace kvcast

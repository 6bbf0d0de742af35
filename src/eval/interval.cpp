#include "eval/interval.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace kvcast {

Interval bootstrap_mean(std::span<const double> values, uint64_t seed) {
  constexpr size_t kResamples = 1000;
  const auto count = static_cast<double>(values.size());
  std::mt19937_64 random(seed);  // its output is fixed by the standard
  std::vector<double> means;
  for (size_t resample = 0; resample < kResamples; ++resample) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[random() % values.size()];
    means.push_back(sum / count);
  }
  std::ranges::sort(means);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  return {mean, means[kResamples * 25 / 1000], means[kResamples * 975 / 1000 - 1]};
}

}  // namespace kvcast

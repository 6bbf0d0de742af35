// What the micro-benchmarks share. Arguments are (instruction set, threads, ...); rates are
// compared with a peak that is measured in the same process, beside the benchmark it belongs to.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace kvcast::bench {

inline std::vector<float> random_floats(int64_t count, uint32_t seed = 1) {
  std::minstd_rand generator(seed);
  const float step = 2.0F / static_cast<float>(std::minstd_rand::max());
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(generator()) * step - 1.0F;
  return values;
}

inline const char* type_name(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return "f32";
    case WeightType::kBf16:
      return "bf16";
    case WeightType::kInt8:
      return "int8";
    case WeightType::kInt4Blocks:
      return "int4_blocks";
    case WeightType::kInt8Blocks:
      return "int8_blocks";
  }
  return "unknown";
}

/// GFLOP/s and, against `peak_per_s` measured just now, the share of it.
inline void report_operations(benchmark::State& state, double operations, double peak_per_s) {
  using benchmark::Counter;
  const double total = operations * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = Counter(total / 1e9, Counter::kIsRate);
  state.counters["share_of_peak"] = Counter(total / peak_per_s, Counter::kIsRate);
}

inline void report_bytes(benchmark::State& state, double bytes, double read_per_s) {
  using benchmark::Counter;
  const double total = bytes * static_cast<double>(state.iterations());
  state.counters["GB/s"] = Counter(total / 1e9, Counter::kIsRate);
  state.counters["share_of_read"] = Counter(total / read_per_s, Counter::kIsRate);
}

/// Read bandwidth is a property of machine and threads, and slow to measure: once per count.
inline double read_bytes_per_s(int threads) {
  static std::vector<double> measured(1024, 0.0);
  double& value = measured[static_cast<size_t>(std::clamp(threads, 1, 1023))];
  if (value == 0.0) value = measure_read_bytes_per_s(threads);
  return value;
}

}  // namespace kvcast::bench

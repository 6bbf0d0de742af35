#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/kernels.h"

namespace kvcast {
namespace {

void BM_matmul(benchmark::State& state) {
  const int64_t rows = state.range(0), n = state.range(1), k = state.range(2);
  const std::vector<float> source(static_cast<size_t>(n * k), 0.01F);
  const std::vector<float> a(static_cast<size_t>(rows * k), 0.5F);
  std::vector<float> out(static_cast<size_t>(rows * n));
  const PackedMatrix weight = PackedMatrix::pack(reinterpret_cast<const std::byte*>(source.data()),
                                                 SourceType::kF32, n, k, WeightType::kF32, 2);
  for (auto _ : state) {
    matmul({.a = a.data(),
            .a_stride = k,
            .rows = rows,
            .weight = &weight,
            .out = out.data(),
            .out_stride = n},
           2);
  }
}
BENCHMARK(BM_matmul)->Args({16, 256, 256});

}  // namespace
}  // namespace kvcast

BENCHMARK_MAIN();

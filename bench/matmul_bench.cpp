// Matrix products of OpenELM's shapes. With few rows every call takes another copy of the weights,
// so that they come from memory as they do in a model.
#include <cstring>

#include "bench_common.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

void run_matmul(benchmark::State& state, Isa isa, WeightType type, int threads, int64_t n,
                int64_t k) {
  const ScopedIsa scoped(isa);
  const int64_t rows = state.range(0);
  const auto source = bench::random_floats(n * k);
  const auto a = bench::random_floats(rows * k);
  std::vector<float> out(static_cast<size_t>(rows * n));
  constexpr size_t kWorkingSet = size_t{600} << 20;
  const size_t copies =
      std::clamp<size_t>(kWorkingSet / PackedMatrix::packed_bytes(n, k, type).value(), 1, 64);
  std::vector<PackedMatrix> weights{PackedMatrix::pack(
      reinterpret_cast<const std::byte*>(source.data()), SourceType::kF32, n, k, type, threads)};
  while (weights.size() < copies) {
    const std::span<const std::byte> packed = weights[0].data();
    const std::shared_ptr<std::byte> copy = allocate_weights(packed.size());
    std::memcpy(copy.get(), packed.data(), packed.size());
    weights.push_back(PackedMatrix::adopt(copy, n, k, type));
  }
  const double peak = measure_peak_ops_per_s(type, threads, 0.1);
  size_t turn = 0;
  for (auto _ : state) {
    matmul({.a = a.data(),
            .a_stride = k,
            .rows = rows,
            .weight = &weights[turn++ % copies],
            .out = out.data(),
            .out_stride = n},
           threads);
    benchmark::ClobberMemory();
  }
  bench::report_operations(state, 2.0 * static_cast<double>(rows * n * k), peak);
  bench::report_bytes(state, static_cast<double>(weights[0].bytes()),
                      bench::read_bytes_per_s(threads));
}

/// What loading does to a matrix: bytes of f32 read per second.
void run_pack(benchmark::State& state, WeightType type, int threads) {
  constexpr int64_t kN = 2048, kK = 2048;
  const auto source = bench::random_floats(kN * kK);
  for (auto _ : state) {
    benchmark::DoNotOptimize(PackedMatrix::pack(reinterpret_cast<const std::byte*>(source.data()),
                                                SourceType::kF32, kN, kK, type, threads));
  }
  bench::report_bytes(state, 4.0 * kN * kK, bench::read_bytes_per_s(threads));
}

/// Looking up the embeddings of a prompt: rows scattered over a matrix larger than the caches.
void run_unpack_rows(benchmark::State& state, WeightType type, int threads) {
  constexpr int64_t kN = 32'000, kK = 2048;
  const auto source = bench::random_floats(kN * kK);
  const PackedMatrix weights = PackedMatrix::pack(reinterpret_cast<const std::byte*>(source.data()),
                                                  SourceType::kF32, kN, kK, type, threads);
  std::vector<int32_t> indices(static_cast<size_t>(state.range(0)));
  for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int32_t>(i * 7919 % kN);
  std::vector<float> out(indices.size() * kK);
  for (auto _ : state) {
    weights.unpack_rows(indices, out.data(), threads);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

const bool registered = [] {
  const int threads = 2;
  for (const WeightType type : kWeightTypes) {
    const std::string name = bench::type_name(type);
    benchmark::RegisterBenchmark(("pack/" + name).c_str(),
                                 [=](benchmark::State& state) { run_pack(state, type, threads); })
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(
        ("unpack_rows/" + name).c_str(),
        [=](benchmark::State& state) { run_unpack_rows(state, type, threads); })
        ->Arg(1)
        ->Arg(512)
        ->UseRealTime()
        ->Unit(benchmark::kMicrosecond);
  }
  for (const Isa isa : supported_isas()) {
    for (const WeightType type : kWeightTypes) {
      for (const auto& [n, k] :
           {std::pair{2048, 2048}, {10240, 2560}, {2560, 10240}, {1536, 8960}, {17920, 1536}}) {
        const std::string name = "matmul/" + std::string(isa_name(isa)) + "/" +
                                 bench::type_name(type) + "/" + std::to_string(n) + "x" +
                                 std::to_string(k) + "/rows";
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=, n = int64_t{n}, k = int64_t{k}](benchmark::State& state) {
                                       run_matmul(state, isa, type, threads, n, k);
                                     })
            ->Arg(1)
            ->Arg(2)
            ->Arg(4)
            ->Arg(8)
            ->Arg(16)
            ->Arg(64)
            ->Arg(128)
            ->Arg(512)
            ->UseRealTime()
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace kvcast

BENCHMARK_MAIN();

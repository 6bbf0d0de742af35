// The element-wise kernels: bytes read and written per second.
#include "bench_common.h"

namespace kvcast {
namespace {

void run_rms_norm(benchmark::State& state, Isa isa, int threads) {
  const ScopedIsa scoped(isa);
  const int64_t rows = state.range(0);
  constexpr int64_t kDim = 2048;
  const auto x = bench::random_floats(rows * kDim);
  const auto weight = bench::random_floats(kDim);
  std::vector<float> out(x.size());
  for (auto _ : state) {
    rms_norm({.x = x.data(),
              .x_stride = kDim,
              .weight = weight.data(),
              .out = out.data(),
              .out_stride = kDim,
              .rows = rows,
              .dim = kDim},
             threads);
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 8.0 * static_cast<double>(rows * kDim),
                      bench::read_bytes_per_s(threads));
}

void run_silu_mul(benchmark::State& state, Isa isa, int threads) {
  const ScopedIsa scoped(isa);
  const int64_t rows = state.range(0);
  constexpr int64_t kFfn = 5632;
  const auto gate_up = bench::random_floats(rows * 2 * kFfn);
  std::vector<float> out(static_cast<size_t>(rows * kFfn));
  for (auto _ : state) {
    silu_mul({.gate_up = gate_up.data(),
              .gate_up_stride = 2 * kFfn,
              .out = out.data(),
              .out_stride = kFfn,
              .rows = rows,
              .ffn_dim = kFfn},
             threads);
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 12.0 * static_cast<double>(rows * kFfn),
                      bench::read_bytes_per_s(threads));
}

void run_head_norm_rope(benchmark::State& state, Isa isa, int threads) {
  const ScopedIsa scoped(isa);
  const int64_t rows = state.range(0);
  constexpr int64_t kHeads = 20, kHeadDim = 64;
  auto x = bench::random_floats(rows * kHeads * kHeadDim);
  // A rotation: x is changed in place again and again, and must neither grow nor vanish.
  const std::vector<float> weight(kHeadDim, 1.0F);
  const std::vector<float> table(static_cast<size_t>(rows * kHeadDim / 2), 0.70710678F);
  for (auto _ : state) {
    head_norm_rope({.x = x.data(),
                    .x_stride = kHeads * kHeadDim,
                    .rows = rows,
                    .heads = kHeads,
                    .head_dim = kHeadDim,
                    .norm_weight = weight.data(),
                    .rope_cos = table.data(),
                    .rope_sin = table.data(),
                    .out = x.data(),
                    .out_row_stride = kHeads * kHeadDim,
                    .out_head_stride = kHeadDim},
                   threads);
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 8.0 * static_cast<double>(rows * kHeads * kHeadDim),
                      bench::read_bytes_per_s(threads));
}

const bool registered = [] {
  struct Kernel {
    const char* name;
    void (*run)(benchmark::State&, Isa, int);
  };
  for (const Isa isa : supported_isas()) {
    for (const Kernel& kernel : {Kernel{"rms_norm/", run_rms_norm},
                                 {"silu_mul/", run_silu_mul},
                                 {"head_norm_rope/", run_head_norm_rope}}) {
      const std::string name = kernel.name + std::string(isa_name(isa)) + "/rows";
      benchmark::RegisterBenchmark(
          name.c_str(), [=, run = kernel.run](benchmark::State& state) { run(state, isa, 2); })
          ->Arg(1)
          ->Arg(512)
          ->UseRealTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  return true;
}();

}  // namespace
}  // namespace kvcast

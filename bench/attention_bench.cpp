// Attention of one sequence with 16 query heads on 4 KV heads: whole prompts and single tokens.
#include "bench_common.h"

namespace kvcast {
namespace {

constexpr AttentionShape kShape{.query_heads = 16, .kv_heads = 4, .head_dim = 64};

void run_attention(benchmark::State& state, Isa isa, int threads) {
  const ScopedIsa scoped(isa);
  const int64_t rows = state.range(0);
  const int64_t first_position = state.range(1);
  const int64_t width = kShape.query_heads * kShape.head_dim;
  const int64_t head_stride = (first_position + rows) * kShape.head_dim;
  const auto q = bench::random_floats(rows * width);
  const auto keys = bench::random_floats(kShape.kv_heads * head_stride);
  const auto values = bench::random_floats(kShape.kv_heads * head_stride);
  std::vector<float> out(static_cast<size_t>(rows * width));
  const AttentionArgs args{.q = q.data(),
                           .q_stride = width,
                           .rows = rows,
                           .first_position = first_position,
                           .keys = keys.data(),
                           .values = values.data(),
                           .head_stride = head_stride,
                           .out = out.data(),
                           .out_stride = width};
  const double peak = measure_peak_ops_per_s(WeightType::kF32, threads, 0.1);
  for (auto _ : state) {
    attention({&args, 1}, kShape, threads);
    benchmark::ClobberMemory();
  }
  const double seen = static_cast<double>(rows) *
                      (static_cast<double>(first_position) + (static_cast<double>(rows) + 1.0) / 2);
  bench::report_operations(state, 4.0 * seen * static_cast<double>(width), peak);
  if (rows == 1) {
    bench::report_bytes(state, 8.0 * static_cast<double>(kShape.kv_heads * head_stride),
                        bench::read_bytes_per_s(threads));
  }
}

const bool registered = [] {
  for (const Isa isa : supported_isas()) {
    const std::string name = "attention/" + std::string(isa_name(isa)) + "/rows/cached";
    auto* const benchmark = benchmark::RegisterBenchmark(
        name.c_str(), [=](benchmark::State& state) { run_attention(state, isa, 2); });
    benchmark->UseRealTime()->Unit(benchmark::kMicrosecond);
    for (const int64_t rows : {128, 512, 2048}) benchmark->Args({rows, 0});
    for (const int64_t cached : {512, 2048, 8192}) benchmark->Args({1, cached});
  }
  return true;
}();

}  // namespace
}  // namespace kvcast

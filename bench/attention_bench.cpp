// Attention of one sequence with 16 query heads on 4 KV heads: whole prompts and single tokens.
#include "bench_common.h"

namespace kvcast {
namespace {

std::vector<std::byte> random_cache(int64_t rows, int64_t head_dim, KvType type) {
  const auto floats = bench::random_floats(rows * head_dim);
  std::vector<std::byte> bytes(static_cast<size_t>(rows * kv_row_bytes(type, head_dim)));
  HeadNormRopeArgs args{.x = floats.data(),
                        .x_stride = head_dim,
                        .rows = rows,
                        .heads = 1,
                        .head_dim = head_dim,
                        .out_row_stride = kv_row_elements(type, head_dim)};
  if (type == KvType::kF32) args.out = reinterpret_cast<float*>(bytes.data());
  if (type == KvType::kBf16) args.out_bf16 = reinterpret_cast<uint16_t*>(bytes.data());
  if (type == KvType::kInt8) args.out_int8 = reinterpret_cast<int8_t*>(bytes.data());
  head_norm_rope(args, 1);
  return bytes;
}

void run_attention(benchmark::State& state, Isa isa, KvType kv_type, int threads) {
  const ScopedIsa scoped(isa);
  const AttentionShape shape{.query_heads = 16, .kv_heads = 4, .head_dim = 64, .kv_type = kv_type};
  const int64_t rows = state.range(0);
  const int64_t first_position = state.range(1);
  const int64_t width = shape.query_heads * shape.head_dim;
  const int64_t cache_rows = first_position + rows;
  const auto q = bench::random_floats(rows * width);
  const auto keys = random_cache(shape.kv_heads * cache_rows, shape.head_dim, kv_type);
  const auto values = random_cache(shape.kv_heads * cache_rows, shape.head_dim, kv_type);
  std::vector<float> out(static_cast<size_t>(rows * width));
  const AttentionArgs args{.q = q.data(),
                           .q_stride = width,
                           .rows = rows,
                           .first_position = first_position,
                           .keys = keys.data(),
                           .values = values.data(),
                           .head_stride = cache_rows * kv_row_elements(kv_type, shape.head_dim),
                           .out = out.data(),
                           .out_stride = width};
  const double peak = measure_attention_peak_ops_per_s(kv_type, threads, 0.1);
  for (auto _ : state) {
    attention({&args, 1}, shape, threads);
    benchmark::ClobberMemory();
  }
  const double seen = static_cast<double>(rows) *
                      (static_cast<double>(first_position) + (static_cast<double>(rows) + 1.0) / 2);
  bench::report_operations(state, 4.0 * seen * static_cast<double>(width), peak);
  if (rows == 1) {
    bench::report_bytes(state, static_cast<double>(keys.size() + values.size()),
                        bench::read_bytes_per_s(threads));
  }
}

const bool registered = [] {
  for (const Isa isa : supported_isas()) {
    for (const KvType type : {KvType::kF32, KvType::kBf16, KvType::kInt8}) {
      constexpr const char* kNames[] = {"/f32", "/bf16", "/int8"};
      const std::string name = "attention/" + std::string(isa_name(isa)) +
                               kNames[static_cast<int>(type)] + "/rows/cached";
      auto* const benchmark = benchmark::RegisterBenchmark(
          name.c_str(), [=](benchmark::State& state) { run_attention(state, isa, type, 2); });
      benchmark->UseRealTime()->Unit(benchmark::kMicrosecond);
      for (const int64_t rows : {128, 512, 2048}) benchmark->Args({rows, 0});
      for (const int64_t cached : {1536, 3584, 7680}) benchmark->Args({512, cached});
      for (const int64_t cached : {512, 2048, 8192}) benchmark->Args({1, cached});
    }
  }
  return true;
}();

}  // namespace
}  // namespace kvcast

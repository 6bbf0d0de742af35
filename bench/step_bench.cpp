// The products of one step of Qwen2.5-Coder-1.5B, layer after layer: a decode row, or one and rows
// that are refined beside it. Weights come from memory, as in a model. Rows want comparing in
// turns: --benchmark_filter=step/int4 --benchmark_repetitions=9
// --benchmark_enable_random_interleaving=true.
#include <cstring>
#include <map>

#include "bench_common.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

constexpr int64_t kDim = 1536, kKvDim = 256, kFfnDim = 8960;

struct Layer {
  PackedMatrix q, k, v, o, gate_up, down;
};

PackedMatrix copy_of(const PackedMatrix& weight) {
  const std::span<const std::byte> packed = weight.data();
  const std::shared_ptr<std::byte> bytes = allocate_weights(packed.size());
  std::memcpy(bytes.get(), packed.data(), packed.size());
  return PackedMatrix::adopt(bytes, weight.n(), weight.k(), weight.type());
}

/// As many layers as are far more than any cache, made once.
const std::vector<Layer>& layers_of(WeightType type) {
  static std::map<WeightType, std::vector<Layer>> made;
  std::vector<Layer>& layers = made[type];
  if (!layers.empty()) return layers;
  const auto pack = [&](int64_t n, int64_t k) {
    const auto source = bench::random_floats(n * k);
    return PackedMatrix::pack(reinterpret_cast<const std::byte*>(source.data()), SourceType::kF32,
                              n, k, type, 2);
  };
  layers.push_back({pack(kDim, kDim), pack(kKvDim, kDim), pack(kKvDim, kDim), pack(kDim, kDim),
                    pack(2 * kFfnDim, kDim), pack(kDim, kFfnDim)});
  for (int i = 1; i < 20; ++i) {
    const Layer& l = layers[0];
    layers.push_back({copy_of(l.q), copy_of(l.k), copy_of(l.v), copy_of(l.o), copy_of(l.gate_up),
                      copy_of(l.down)});
  }
  return layers;
}

void run_step(benchmark::State& state, WeightType type, int threads) {
  const std::vector<Layer>& layers = layers_of(type);
  const int64_t rows = state.range(0);
  const std::vector<float> x = bench::random_floats(rows * kDim);
  std::vector<float> q(static_cast<size_t>(rows * kDim)), k(q.size()), v(q.size()), out(q.size()),
      wide(static_cast<size_t>(rows * kFfnDim));
  double bytes = 0;
  for (const Layer& l : layers) {
    bytes += static_cast<double>(l.q.bytes() + l.k.bytes() + l.v.bytes() + l.o.bytes() +
                                 l.gate_up.bytes() + l.down.bytes());
  }
  const auto product = [&](const PackedMatrix& weight, const float* a, float* to) {
    return MatmulArgs{.a = a,
                      .a_stride = weight.k(),
                      .rows = rows,
                      .weight = &weight,
                      .out = to,
                      .out_stride = weight.n()};
  };
  for (auto _ : state) {
    for (const Layer& l : layers) {
      const MatmulArgs qkv[] = {product(l.q, x.data(), q.data()), product(l.k, x.data(), k.data()),
                                product(l.v, x.data(), v.data())};
      matmul_shared_input(qkv, threads);
      matmul(product(l.o, x.data(), out.data()), threads);
      matmul_silu({.a = x.data(),
                   .a_stride = kDim,
                   .rows = rows,
                   .weight = &l.gate_up,
                   .out = wide.data(),
                   .out_stride = kFfnDim},
                  threads);
      matmul(product(l.down, wide.data(), out.data()), threads);
    }
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, bytes, bench::read_bytes_per_s(threads));
}

const bool registered = [] {
  for (const WeightType type : kWeightTypes) {
    auto* const step = benchmark::RegisterBenchmark(
        ("step/" + std::string(bench::type_name(type)) + "/rows").c_str(),
        [=](benchmark::State& state) { run_step(state, type, 2); });
    for (const int64_t rows : {1, 2, 4, 6, 8, 9, 10, 12, 16}) step->Arg(rows);
    step->UseRealTime()->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace kvcast

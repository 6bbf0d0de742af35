// Matrix products of OpenELM's shapes: kvcast's beside oneDNN's, in turns, in one process; JSON on
// stdout. oneDNN gets weights reordered into the format that it chooses and activations converted
// beforehand; kvcast's times include the conversion of its f32 activations, as in a model.
#include <fmt/format.h>
#include <omp.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>

#include "../bench_common.h"
#include "kvcast/version.h"
#include "model/architectures.h"

namespace kvcast {
namespace {

using DnnlType = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

struct Product {
  std::string name;  // architecture and matrix
  int64_t rows, n, k;
};

double seconds_of(const auto& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

/// out [rows, n] = a [rows, k] · w [k, n]; int8 is u8 x s8 with f32 out.
class DnnlMatmul {
 public:
  DnnlMatmul(const Product& p, WeightType type)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const auto [source, weights] = types(type);
    const dnnl::memory::dims a{p.rows, p.k}, w{p.k, p.n}, c{p.rows, p.n};
    const dnnl::matmul::desc desc({a, source, Tag::ab}, {w, weights, Tag::any},
                                  {c, DnnlType::f32, Tag::ab});
    const dnnl::matmul::primitive_desc primitive(desc, engine_);
    matmul_ = dnnl::matmul(primitive);
    a_ = filled({a, source, Tag::ab}, source);
    dnnl::memory plain = filled({w, weights, Tag::ab}, weights);
    w_ = dnnl::memory(primitive.weights_desc(), engine_);
    dnnl::reorder(plain, w_).execute(stream_, plain, w_);
    c_ = dnnl::memory(primitive.dst_desc(), engine_);
    stream_.wait();
  }

  void run() {
    matmul_.execute(stream_, {{DNNL_ARG_SRC, a_}, {DNNL_ARG_WEIGHTS, w_}, {DNNL_ARG_DST, c_}});
    stream_.wait();
  }

 private:
  static std::pair<DnnlType, DnnlType> types(WeightType type) {
    if (type == WeightType::kF32) return {DnnlType::f32, DnnlType::f32};
    if (type == WeightType::kBf16) return {DnnlType::bf16, DnnlType::bf16};
    return {DnnlType::u8, DnnlType::s8};
  }
  dnnl::memory filled(const dnnl::memory::desc& desc, DnnlType type) {
    const auto count = static_cast<int64_t>(desc.get_size()) / size(type);
    std::vector<float> values = bench::random_floats(count);
    if (size(type) == 1) {
      for (float& value : values) value *= 100.0F;
    }
    dnnl::memory out(desc, engine_);
    dnnl::memory from({desc.dims(), DnnlType::f32, Tag::ab}, engine_, values.data());
    dnnl::reorder(from, out).execute(stream_, from, out);
    stream_.wait();
    return out;
  }
  static int64_t size(DnnlType type) {
    return type == DnnlType::f32 ? 4 : type == DnnlType::bf16 ? 2 : 1;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  dnnl::memory a_, w_, c_;
};

nlohmann::ordered_json compare(const Product& p, WeightType type, int threads, int rounds) {
  const auto source = bench::random_floats(p.n * p.k);
  const PackedMatrix weight = PackedMatrix::pack(reinterpret_cast<const std::byte*>(source.data()),
                                                 SourceType::kF32, p.n, p.k, type, threads);
  const auto a = bench::random_floats(p.rows * p.k);
  std::vector<float> out(static_cast<size_t>(p.rows * p.n));
  const auto ours = [&] {
    matmul({.a = a.data(),
            .a_stride = p.k,
            .rows = p.rows,
            .weight = &weight,
            .out = out.data(),
            .out_stride = p.n},
           threads);
  };
  DnnlMatmul dnnl(p, type);
  const auto theirs = [&] { dnnl.run(); };
  const double peak = measure_peak_ops_per_s(type, threads, 0.1);
  const double operations = 2.0 * static_cast<double>(p.rows * p.n * p.k);
  // Enough calls a sample to take about ten milliseconds.
  const int calls = std::max(1, static_cast<int>(0.01 * 0.7 * peak / operations));
  std::vector<double> our_times, their_times;
  for (int round = -1; round < rounds; ++round) {  // the first warms up
    const double our_time = seconds_of([&] {
      for (int i = 0; i < calls; ++i) ours();
    });
    const double their_time = seconds_of([&] {
      for (int i = 0; i < calls; ++i) theirs();
    });
    if (round < 0) continue;
    our_times.push_back(our_time / calls);
    their_times.push_back(their_time / calls);
  }
  const double our_time = median(our_times), their_time = median(their_times);
  return {{"product", p.name},
          {"dtype", bench::type_name(type)},
          {"rows", p.rows},
          {"n", p.n},
          {"k", p.k},
          {"kvcast_share_of_peak", operations / our_time / peak},
          {"onednn_share_of_peak", operations / their_time / peak},
          {"onednn_over_kvcast_time", their_time / our_time}};
}

/// The matrices of an architecture's middle layer.
std::vector<Product> products(const std::string& arch) {
  const ModelConfig config = named_architecture(arch).value();
  const int64_t i = config.n_layers() / 2, dim = config.model_dim, ffn = config.layers[i].ffn_dim;
  std::vector<Product> list;
  for (const int64_t rows : {16, 128, 512}) {
    list.push_back({arch + " q_proj", rows, config.query_width(i), dim});
    list.push_back({arch + " k_proj", rows, config.kv_width(i), dim});
    list.push_back({arch + " proj_1", rows, 2 * ffn, dim});
    list.push_back({arch + " proj_2", rows, dim, ffn});
  }
  return list;
}

}  // namespace
}  // namespace kvcast

/// Arguments: [ROUNDS [ARCH...]]
int main(int argc, char** argv) {
  using namespace kvcast;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  std::vector<std::string> archs(argv + std::min(argc, 2), argv + argc);
  if (archs.empty()) archs = {"openelm-1.1b"};
  const int threads = omp_get_max_threads();
  const dnnl_version_t& version = *dnnl_version();
  nlohmann::ordered_json json = {
      {"isa", isa_name(active_isa())},
      {"commit", commit()},
      {"threads", threads},
      {"onednn", fmt::format("{}.{}.{}", version.major, version.minor, version.patch)},
      {"rounds", rounds},
      {"results", nlohmann::json::array()}};
  for (const std::string& arch : archs) {
    for (const WeightType type : {WeightType::kF32, WeightType::kBf16, WeightType::kInt8}) {
      for (const Product& product : products(arch)) {
        json["results"].push_back(compare(product, type, threads, rounds));
      }
    }
  }
  fmt::print("{}\n", json.dump(1));
  return 0;
}

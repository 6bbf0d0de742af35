// Rates of the products on one instruction set after the other, in one process and in turns: how
// much integer weights bring over f32 on each, how near the peak of its instructions they come, and
// whether more threads ever cost something. A table on stdout, or JSON.
//
//     kvcast_isa_rates --isa avx2,avxvnni,avx512bf16 --threads 1,2 --rows 1,128,512
//
// Every figure is the median of the rounds; a round passes through all cases once, so that what
// disturbs the machine for a while disturbs them alike.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/processors.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

struct Options {
  std::vector<std::string> isas, types = {"f32", "bf16", "int8", "int4", "int8-blocks"};
  std::vector<int> threads = {available_processors()};
  std::vector<int64_t> rows = {1, 128, 512};
  int64_t n = 8960, k = 1536;
  int rounds = 5;
  double seconds = 0.05;
  bool json = false;
};

const std::map<std::string, WeightType> kTypes = {{"f32", WeightType::kF32},
                                                  {"bf16", WeightType::kBf16},
                                                  {"int8", WeightType::kInt8},
                                                  {"int4", WeightType::kInt4Blocks},
                                                  {"int8-blocks", WeightType::kInt8Blocks}};

struct Case {
  Isa isa = Isa::kPortable;
  std::string type;
  int threads = 1;
  int64_t rows = 1;
  std::vector<double> seconds;  // per product, by round
  double peak_ops_per_s = 0, read_bytes_per_s = 0, operations = 0, bytes = 0;

  [[nodiscard]] double median() const {
    std::vector<double> sorted = seconds;
    std::ranges::sort(sorted);
    return sorted[sorted.size() / 2];
  }
  [[nodiscard]] double ops_per_s() const { return operations / median(); }
  [[nodiscard]] double bytes_per_s() const { return bytes / median(); }
};

std::vector<float> random_floats(int64_t count) {
  std::minstd_rand generator(1);
  const float step = 2.0F / static_cast<float>(std::minstd_rand::max());
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(generator()) * step - 1.0F;
  return values;
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Copies of one matrix, so many that a product of few rows finds none of its weights in a cache.
class Weights {
 public:
  Weights(const std::vector<float>& source, int64_t n, int64_t k, WeightType type, int threads) {
    constexpr size_t kWorkingSet = size_t{600} << 20;
    copies_.push_back(PackedMatrix::pack(reinterpret_cast<const std::byte*>(source.data()),
                                         SourceType::kF32, n, k, type, threads));
    const std::span<const std::byte> packed = copies_[0].data();
    while (copies_.size() * packed.size() < kWorkingSet) {
      const std::shared_ptr<std::byte> copy = allocate_weights(packed.size());
      std::memcpy(copy.get(), packed.data(), packed.size());
      copies_.push_back(PackedMatrix::adopt(copy, n, k, type));
    }
  }
  const PackedMatrix& next() { return copies_[turn_++ % copies_.size()]; }

 private:
  std::vector<PackedMatrix> copies_;
  size_t turn_ = 0;
};

/// Seconds per product, over at least `seconds` and two products after one that warms up.
double time_products(const Case& c, Weights& weights, const std::vector<float>& a, float* out,
                     double seconds) {
  const auto run = [&] {
    const PackedMatrix& weight = weights.next();
    matmul({.a = a.data(),
            .a_stride = weight.k(),
            .rows = c.rows,
            .weight = &weight,
            .out = out,
            .out_stride = weight.n()},
           c.threads);
  };
  run();
  const double begin = now_s();
  double end = begin;
  int products = 0;
  for (; products < 2 || end < begin + seconds; ++products) {
    run();
    end = now_s();
  }
  return (end - begin) / products;
}

std::vector<Case> make_cases(const Options& options, const std::vector<Isa>& isas) {
  std::vector<Case> cases;
  for (const std::string& type : options.types) {
    for (const int threads : options.threads) {
      for (const Isa isa : isas) {
        for (const int64_t rows : options.rows) {
          Case& c = cases.emplace_back();
          c.isa = isa;
          c.type = type;
          c.threads = threads;
          c.rows = rows;
          c.operations = 2.0 * static_cast<double>(rows * options.n * options.k);
        }
      }
    }
  }
  return cases;
}

/// The machine's peak for the case, or what it was found to be in this round or an earlier one, if
/// that is more: others may have been interrupted.
void update_peak(std::vector<Case>& cases, const Case& c) {
  const double peak = measure_peak_ops_per_s(kTypes.at(c.type), c.threads, 0.05);
  for (Case& other : cases) {
    if (other.isa == c.isa && other.type == c.type && other.threads == c.threads) {
      other.peak_ops_per_s = std::max(other.peak_ops_per_s, peak);
    }
  }
}

void measure(const Options& options, std::vector<Case>& cases) {
  const int most_threads = std::ranges::max(options.threads);
  const int64_t most_rows = std::ranges::max(options.rows);
  const std::vector<float> source = random_floats(options.n * options.k);
  const std::vector<float> a = random_floats(most_rows * options.k);
  // On huge pages, as a model's activations are.
  const auto out = allocate_pages(static_cast<size_t>(most_rows * options.n) * sizeof(float));
  std::map<int, double> read;
  for (const int threads : options.threads) read[threads] = measure_read_bytes_per_s(threads, 0.2);
  for (const std::string& type : options.types) {
    Weights weights(source, options.n, options.k, kTypes.at(type), most_threads);
    for (int round = 0; round < options.rounds; ++round) {
      for (Case& c : cases) {
        if (c.type != type) continue;
        const ScopedIsa scoped(c.isa);
        if (c.rows == options.rows.front()) update_peak(cases, c);
        c.bytes = static_cast<double>(weights.next().bytes());
        c.read_bytes_per_s = read[c.threads];
        c.seconds.push_back(
            time_products(c, weights, a, reinterpret_cast<float*>(out.get()), options.seconds));
      }
    }
  }
}

/// The case that is like `c` but for one thing; null: not measured.
const Case* find(const std::vector<Case>& cases, Isa isa, const std::string& type, int threads,
                 int64_t rows) {
  const auto at = std::ranges::find_if(cases, [&](const Case& c) {
    return c.isa == isa && c.type == type && c.threads == threads && c.rows == rows;
  });
  return at == cases.end() ? nullptr : &*at;
}

void print_table(const std::vector<Case>& cases, double n, double k) {
  fmt::print(
      "{:.0f} x {:.0f}, medians; share: of the instructions' peak, at one row of the read "
      "bandwidth\n\n",
      n, k);
  fmt::print("| isa | weights | threads | rows | Gop/s | GB/s | share | f32's rate |\n");
  fmt::print("|---|---|--:|--:|--:|--:|--:|--:|\n");
  for (const Case& c : cases) {
    const double share =
        c.rows == 1 ? c.bytes_per_s() / c.read_bytes_per_s : c.ops_per_s() / c.peak_ops_per_s;
    const Case* const f32 = find(cases, c.isa, "f32", c.threads, c.rows);
    fmt::print("| {} | {} | {} | {} | {:.0f} | {:.1f} | {:.0f}% | {} |\n", isa_name(c.isa), c.type,
               c.threads, c.rows, c.ops_per_s() / 1e9, c.bytes_per_s() / 1e9, 100 * share,
               f32 == nullptr ? "" : fmt::format("{:.2f}x", c.ops_per_s() / f32->ops_per_s()));
  }
}

/// Where a larger number of threads was slower than the next smaller one, by more than 3%.
void print_slower_with_more(const Options& options, const std::vector<Case>& cases) {
  int slower = 0;
  for (const Case& c : cases) {
    int fewer = 0;
    for (const int threads : options.threads) {
      if (threads < c.threads) fewer = std::max(fewer, threads);
    }
    const Case* const before = find(cases, c.isa, c.type, fewer, c.rows);
    if (before == nullptr || c.ops_per_s() >= 0.97 * before->ops_per_s()) continue;
    ++slower;
    fmt::print(
        "slower with more threads: {} {} {} rows: {} threads {:.0f}, {} threads {:.0f} "
        "Gop/s\n",
        isa_name(c.isa), c.type, c.rows, fewer, before->ops_per_s() / 1e9, c.threads,
        c.ops_per_s() / 1e9);
  }
  if (options.threads.size() > 1 && slower == 0) fmt::print("never slower with more threads\n");
}

void print_json(const Options& options, const std::vector<Case>& cases) {
  nlohmann::json list = nlohmann::json::array();
  for (const Case& c : cases) {
    list.push_back({{"isa", isa_name(c.isa)},
                    {"weights", c.type},
                    {"threads", c.threads},
                    {"rows", c.rows},
                    {"ops_per_s", c.ops_per_s()},
                    {"bytes_per_s", c.bytes_per_s()},
                    {"peak_ops_per_s", c.peak_ops_per_s},
                    {"read_bytes_per_s", c.read_bytes_per_s}});
  }
  const nlohmann::json all = {
      {"n", options.n}, {"k", options.k}, {"rounds", options.rounds}, {"cases", list}};
  fmt::print("{}\n", all.dump(1));
}

int run(const Options& options) {
  std::vector<Isa> isas;
  for (const std::string& name : options.isas) {
    const Result<Isa> isa = find_isa(name);
    if (!isa) {
      fmt::print(stderr, "kvcast_isa_rates: {}\n", isa.error().message);
      return 1;
    }
    isas.push_back(*isa);
  }
  if (isas.empty()) {
    std::ranges::copy_if(supported_isas(), std::back_inserter(isas),
                         [](Isa isa) { return isa != Isa::kPortable; });  // by far the slowest
  }
  std::vector<Case> cases = make_cases(options, isas);
  measure(options, cases);
  if (options.json) {
    print_json(options, cases);
    return 0;
  }
  print_table(cases, static_cast<double>(options.n), static_cast<double>(options.k));
  fmt::print("\n");
  print_slower_with_more(options, cases);
  return 0;
}

}  // namespace
}  // namespace kvcast

int main(int argc, char** argv) {
  kvcast::Options options;
  CLI::App app("Rates of matrix products on one instruction set after the other");
  std::vector<std::string> types;
  for (const auto& [name, type] : kvcast::kTypes) types.push_back(name);
  app.add_option("--isa", options.isas, "instruction sets; all that run here but portable")
      ->delimiter(',');
  app.add_option("--types", options.types, "weights")->delimiter(',')->check(CLI::IsMember(types));
  app.add_option("--threads", options.threads, "numbers of threads")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  app.add_option("--rows", options.rows, "rows of activations")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  app.add_option("-n", options.n, "output features")->check(CLI::Range(1, 1 << 20));
  app.add_option("-k", options.k, "inputs")->check(CLI::Range(1, 1 << 20));
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.seconds, "of each case in a round")
      ->check(CLI::Range(0.001, 100.0));
  app.add_flag("--json", options.json);
  CLI11_PARSE(app, argc, argv);
  return kvcast::run(options);
}

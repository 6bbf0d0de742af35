// What the machine can do, measured with the instructions and the memory that the kernels use.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/team.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {
namespace {

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

size_t last_level_cache_bytes() {
  return static_cast<size_t>(std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), 0L));
}

/// Twice the last-level cache that the system reports: a cyclic read of that much finds nothing of
/// itself in it. At least 256 MiB, at most 1 GiB (virtual machines report the cache of the whole
/// socket, of which they have a part) and at most a quarter of the memory.
size_t read_test_bytes() {
  constexpr size_t kMiB = size_t{1} << 20;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  size_t bytes = std::clamp(2 * last_level_cache_bytes(), 256 * kMiB, 1024 * kMiB);
  if (pages > 0 && page_bytes > 0) {
    bytes = std::min(bytes, static_cast<size_t>(pages) * static_cast<size_t>(page_bytes) / 4);
  }
  return bytes / kMiB * kMiB;
}

/// spin(iterations) runs instructions in registers and says how many operations that was.
template <typename Spin>
double measure_peak(const Spin& spin, int threads, double seconds) {
  constexpr int64_t kIterations = 5'000;
  constexpr int kSlices = 40;  // the best slice: others may have been interrupted
  double best = 0.0;
  for (int slice = 0; slice < kSlices; ++slice) {
    // Every worker its own rate over its own time: one that comes late counts for what it does.
    std::vector<double> rates(static_cast<size_t>(threads), 0.0);
    run_together(threads, [&](int worker) {
      spin(kIterations);  // clocks and power licences settle
      const double begin = now_s();
      double operations = 0.0;
      double end = begin;
      do {
        operations += spin(kIterations);
        end = now_s();
      } while (end < begin + seconds / kSlices);
      rates[static_cast<size_t>(worker)] = operations / (end - begin);
    });
    best = std::max(best, std::accumulate(rates.begin(), rates.end(), 0.0));
  }
  return best;
}

}  // namespace

double measure_peak_ops_per_s(WeightType type, int threads, double seconds) {
  const KernelTable& table = kernels();
  return measure_peak([&](int64_t n) { return table.spin(type, n); }, threads, seconds);
}

double measure_attention_peak_ops_per_s(KvType type, int threads, double seconds) {
  return measure_peak(kernels().attention(type).spin, threads, seconds);
}

double measure_read_bytes_per_s(int threads, double seconds) {
  const KernelTable& table = kernels();
  const size_t bytes = read_test_bytes();
  const std::shared_ptr<std::byte> data = allocate_pages(bytes);
  if (data == nullptr) return 0.0;
  constexpr size_t kPiece = size_t{256} << 10;  // about a panel: threads share the stream evenly
  // The best window counts: others may have been interrupted. Twice the cache at least, or that
  // would be the window of which most was left in it.
  const size_t window_bytes =
      std::min(std::max(2 * last_level_cache_bytes(), size_t{64} << 20), bytes);
  const size_t pieces = bytes / kPiece;
  const size_t window_pieces = window_bytes / kPiece;
  parallel_for(static_cast<int64_t>(pieces), threads, [&](int64_t piece, int) {
    std::memset(data.get() + static_cast<size_t>(piece) * kPiece, 1, kPiece);
  });
  double best = 0.0;
  std::atomic<uint64_t> sink{0};
  const double stop = now_s() + seconds;
  size_t window = 0;
  do {
    const size_t end = std::min(window + window_pieces, pieces);
    const double begin = now_s();
    parallel_for(static_cast<int64_t>(end - window), threads, [&](int64_t piece, int) {
      const std::byte* const at = data.get() + (window + static_cast<size_t>(piece)) * kPiece;
      sink.fetch_xor(table.read(at, kPiece), std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>((end - window) * kPiece) / (now_s() - begin));
    window = end + window_pieces <= pieces ? end : 0;
  } while (now_s() < stop);
  return best;
}

}  // namespace kvcast

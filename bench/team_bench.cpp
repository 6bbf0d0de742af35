// What it costs to share work out: tasks that do nothing.
#include "base/processors.h"
#include "base/team.h"
#include "bench_common.h"

namespace kvcast {
namespace {

void thread_counts(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(1);
  for (int threads = 2; threads <= available_processors(); threads *= 2) benchmark->Arg(threads);
}

void run_empty_tasks(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    parallel_for(threads, threads, [](int64_t task, int) { benchmark::DoNotOptimize(task); });
  }
}
BENCHMARK(run_empty_tasks)->Name("team/threads")->Apply(thread_counts)->UseRealTime();

/// Six tasks of about half a microsecond for each thread, as in the small products of a decode
/// step. What one thread takes is the tasks' own time.
void run_short_tasks(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    parallel_for(6 * threads, threads, [](int64_t task, int) {
      for (int i = 0; i < 1000; ++i) benchmark::DoNotOptimize(task);
    });
  }
}
BENCHMARK(run_short_tasks)->Name("team/short_tasks")->Apply(thread_counts)->UseRealTime();

}  // namespace
}  // namespace kvcast

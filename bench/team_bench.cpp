// What it costs to share work out: tasks that do nothing.
#include "base/team.h"
#include "bench_common.h"

namespace kvcast {
namespace {

void run_empty_tasks(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    parallel_for(threads, threads, [](int64_t task, int) { benchmark::DoNotOptimize(task); });
  }
}
BENCHMARK(run_empty_tasks)->Name("team/threads")->Arg(1)->Arg(2)->UseRealTime();

}  // namespace
}  // namespace kvcast

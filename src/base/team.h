// Threads that share one piece of work: the kernels' only way to use more than one core.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

namespace kvcast {

/// Processors that the system lets this process use, at least 1.
int available_processors();

using TeamBody = void (*)(const void* context, int worker);
/// See run_together.
void run_on_team(int threads, TeamBody body, const void* context);

/// Calls body(worker) on the calling thread, as worker 0, and meanwhile on up to threads - 1
/// helpers (workers 1, 2, ...). Returns when all calls have returned. A helper that the system does
/// not get to run before the caller is done is not waited for: whatever else keeps the cores busy,
/// the work ends as soon as those that run have done it. So `body` must take its work piece by
/// piece from a shared counter, and a piece belongs to whoever took it.
///
/// Each calling thread has helpers of its own; they start with its first call and end with it. If
/// the system gives no more threads, fewer help. `body` must not throw; a call from inside it runs
/// on the caller alone. What the caller wrote before is visible in `body`, what `body` wrote is
/// visible after.
template <typename Body>
void run_together(int threads, const Body& body) {
  run_on_team(
      threads,
      [](const void* context, int worker) { (*static_cast<const Body*>(context))(worker); }, &body);
}

/// A job that one helper of the calling thread does from beginning to end, while the caller's
/// run_together goes on without that helper: for work that waits for memory beside work that
/// computes. What the job itself shares out runs on its thread alone. All calls come from one
/// thread; `job` must not throw.
class SideJob {
 public:
  explicit SideJob(std::function<void()> job) : job_(std::move(job)) {}
  ~SideJob() { withdraw(); }
  SideJob(const SideJob&) = delete;
  SideJob& operator=(const SideJob&) = delete;

  /// Offers the job to the helpers that `threads` allows for, unless it is offered or running. It
  /// is done once, or not at all if no helper comes to it.
  void offer(int threads);
  /// Takes the offer back, or waits until the job is done.
  void withdraw();

 private:
  friend class Team;
  std::function<void()> job_;
  std::atomic<bool> busy_{false};  ///< offered or running
};

/// body(task, worker) for every task in [0, tasks), each once, begun in order, on up to `threads`
/// threads as run_together says; worker < threads.
template <typename Body>
void parallel_for(int64_t tasks, int threads, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto take_tasks = [&](int worker) {
    for (int64_t task = next.fetch_add(1, std::memory_order_relaxed); task < tasks;
         task = next.fetch_add(1, std::memory_order_relaxed)) {
      body(task, worker);
    }
  };
  run_together(static_cast<int>(std::min<int64_t>(threads, tasks)), take_tasks);
}

/// run(begin, end) on consecutive pieces of [0, units), as many as have at least
/// `elements_per_piece` elements each, but at least one.
template <typename Run>
void parallel_pieces(int64_t units, int64_t elements_per_unit, int64_t elements_per_piece,
                     int threads, const Run& run) {
  const int64_t pieces = std::clamp<int64_t>(units * elements_per_unit / elements_per_piece, 1,
                                             std::max<int64_t>(units, 1));
  parallel_for(pieces, threads, [&](int64_t piece, int) {
    run(units * piece / pieces, units * (piece + 1) / pieces);
  });
}

}  // namespace kvcast

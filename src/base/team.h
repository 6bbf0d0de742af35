// Threads that share one piece of work: the kernels' only way to use more than one core.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kvcast {

/// What different threads write lies this many bytes apart: processors fetch lines in pairs.
inline constexpr size_t kApart = 128;

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
/// the system gives no more threads, fewer help. What a call throws ends that call; the first such
/// exception is thrown on when all have returned. A call from inside `body` runs on the caller
/// alone. What the caller wrote before is visible in `body`, what `body` wrote is
/// visible after.
template <typename Body>
void run_together(int threads, const Body& body) {
  run_on_team(
      threads,
      [](const void* context, int worker) { (*static_cast<const Body*>(context))(worker); }, &body);
}

/// The tasks [0, count) of one run_together: each is given to one worker, nearly in order. Many
/// workers take from several counters, each from its own group's first, since every task taken
/// moves the counter from one core to another.
class SharedTasks {
 public:
  static constexpr int64_t kNone = -1;

  SharedTasks(int64_t count, int workers)
      : count_(count), lanes_(std::clamp(workers / kWorkersPerLane, 1, kMostLanes)) {
    for (int lane = 0; lane < lanes_; ++lane) {
      next_[lane].task.store(lane, std::memory_order_relaxed);
    }
  }

  /// A task that nobody has had; kNone: all are given out. From any thread.
  int64_t take(int worker) {
    int lane = worker % lanes_;
    for (int tried = 0; tried < lanes_; ++tried) {
      std::atomic<int64_t>& next = next_[lane].task;
      if (tried == 0 || next.load(std::memory_order_relaxed) < count_) {
        const int64_t task = next.fetch_add(lanes_, std::memory_order_relaxed);
        if (task < count_) return task;
      }
      if (++lane == lanes_) lane = 0;
    }
    return kNone;
  }

 private:
  static constexpr int kWorkersPerLane = 4;
  static constexpr int kMostLanes = 8;
  struct alignas(kApart) Next {
    std::atomic<int64_t> task;  ///< lane, lane + lanes_, ...
  };

  int64_t count_;
  int lanes_;
  Next next_[kMostLanes];
};

/// body(task, worker) for every task in [0, tasks), each once, begun nearly in order, on up to
/// `threads` threads as run_together says; worker < threads.
template <typename Body>
void parallel_for(int64_t tasks, int threads, const Body& body) {
  const int workers = static_cast<int>(std::min<int64_t>(threads, tasks));
  SharedTasks shared(tasks, workers);
  run_together(workers, [&](int worker) {
    for (int64_t task = shared.take(worker); task != SharedTasks::kNone;
         task = shared.take(worker)) {
      body(task, worker);
    }
  });
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

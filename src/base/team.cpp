#include "base/team.h"

#ifdef __linux__
#include <sched.h>
#endif

#include <system_error>
#include <thread>
#include <vector>

namespace kvcast {
namespace {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// How often a helper looks for the next piece of work before it sleeps: some 100 microseconds,
/// more than a forward pass computes between two kernels, less than anybody would notice as load.
constexpr int kSpins = 4000;
/// How often the caller looks for helpers that are still at their last piece.
constexpr int kSpinsForTheLast = 2000;

/// True in helpers, and in a caller while it runs a body.
thread_local bool working = false;

}  // namespace

/// The helpers of one calling thread.
class Team {
 public:
  Team() = default;
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    ending_.store(true, std::memory_order_relaxed);
    announce();
    for (std::thread& helper : helpers_) helper.join();
  }

  void run(int threads, TeamBody body, const void* context) {
    working = true;
    hire(threads - 1);
    body_ = body;
    context_ = context;
    threads_ = threads;
    gate_.store(0, std::memory_order_release);
    announce();
    body(context, 0);
    close_gate();
    working = false;
  }

  void offer(SideJob& job, int threads) {
    hire(threads - 1);
    job.busy_.store(true, std::memory_order_relaxed);
    offered_.store(&job, std::memory_order_release);
    announce();
  }

  /// False: a helper has it, or is done with it.
  bool take_back(SideJob& job) {
    SideJob* expected = &job;
    return offered_.compare_exchange_strong(expected, nullptr, std::memory_order_relaxed);
  }

 private:
  static constexpr int kClosed = 1 << 30;

  void hire(int helpers) {
    while (static_cast<int>(helpers_.size()) < helpers) {
      const int worker = static_cast<int>(helpers_.size()) + 1;
      try {
        helpers_.emplace_back([this, worker] { help(worker); });
      } catch (const std::system_error&) {
        return;  // no more threads: those there are do the work
      }
    }
  }

  void announce() {
    turn_.fetch_add(1, std::memory_order_release);
    turn_.notify_all();
  }

  /// No helper enters any more; waits for those inside.
  void close_gate() {
    int inside = gate_.fetch_or(kClosed, std::memory_order_acq_rel) | kClosed;
    for (int spins = 0; inside != kClosed; ++spins) {
      if (spins < kSpinsForTheLast) {
        pause();
      } else {
        gate_.wait(inside, std::memory_order_acquire);
      }
      inside = gate_.load(std::memory_order_acquire);
    }
  }

  bool enter() {
    int inside = gate_.load(std::memory_order_relaxed);
    while ((inside & kClosed) == 0) {
      if (gate_.compare_exchange_weak(inside, inside + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

  void leave() {
    if (gate_.fetch_sub(1, std::memory_order_acq_rel) == kClosed + 1) gate_.notify_one();
  }

  /// A helper's life.
  void help(int worker) {
    working = true;
    int seen = 0;
    for (;;) {
      int turn = turn_.load(std::memory_order_acquire);
      for (int spins = 0; turn == seen && spins < kSpins; ++spins) {
        pause();
        turn = turn_.load(std::memory_order_acquire);
      }
      if (turn == seen) {
        turn_.wait(seen, std::memory_order_acquire);
        continue;
      }
      seen = turn;
      if (ending_.load(std::memory_order_relaxed)) return;
      if (offered_.load(std::memory_order_relaxed) != nullptr) {
        if (SideJob* const job = offered_.exchange(nullptr, std::memory_order_acquire)) {
          job->job_();
          job->busy_.store(false, std::memory_order_release);
          continue;
        }
      }
      if (!enter()) continue;
      if (worker < threads_) body_(context_, worker);
      leave();
    }
  }

  std::vector<std::thread> helpers_;
  // What is being done; written while the gate is closed and nobody is inside.
  TeamBody body_ = nullptr;
  const void* context_ = nullptr;
  int threads_ = 0;
  alignas(64) std::atomic<int> turn_{0};        ///< moves on when there is work, or the end
  alignas(64) std::atomic<int> gate_{kClosed};  ///< helpers inside; kClosed: nobody may enter
  std::atomic<bool> ending_{false};
  std::atomic<SideJob*> offered_{nullptr};
};

namespace {

Team& own_team() {
  thread_local Team team;
  return team;
}

}  // namespace

void run_on_team(int threads, TeamBody body, const void* context) {
  if (threads <= 1 || working) return body(context, 0);
  own_team().run(threads, body, context);
}

void SideJob::offer(int threads) {
  if (threads <= 1 || working || busy_.load(std::memory_order_acquire)) return;
  own_team().offer(*this, threads);
}

void SideJob::withdraw() {
  if (!busy_.load(std::memory_order_acquire)) return;
  if (own_team().take_back(*this)) return busy_.store(false, std::memory_order_relaxed);
  while (busy_.load(std::memory_order_acquire)) std::this_thread::yield();
}

int available_processors() {
#ifdef __linux__
  cpu_set_t set;  // fewer than there are, in a container or under taskset
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace kvcast

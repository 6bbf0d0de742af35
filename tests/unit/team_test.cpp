#include "base/team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace kvcast {
namespace {

TEST(Team, EveryTaskIsDoneOnceAndItsResultIsVisible) {
  for (const int threads : {1, 2, 3, 16}) {
    for (int round = 0; round < 300; ++round) {
      std::vector<int> done(1000, 0);  // no atomics: what tasks write must be visible afterwards
      parallel_for(1000, threads, [&](int64_t task, int worker) {
        ASSERT_LT(worker, threads);
        ++done[static_cast<size_t>(task)];
      });
      ASSERT_EQ(done, std::vector<int>(1000, 1)) << threads << " threads, round " << round;
    }
  }
}

TEST(Team, MoreThanOneThreadWorks) {
  // The caller's first task waits for another thread's: it ends only if a helper comes.
  std::atomic<bool> helped{false};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  parallel_for(2, 2, [&](int64_t task, int) {
    if (task == 1) helped = true;
    while (!helped && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  });
  EXPECT_TRUE(helped);
}

TEST(Team, NoTasksAndOneThreadAreFine) {
  parallel_for(0, 4, [](int64_t, int) { FAIL(); });
  int calls = 0;
  run_together(1, [&](int worker) { calls += worker == 0; });
  EXPECT_EQ(calls, 1);
}

TEST(Team, ACallFromInsideRunsOnItsCallerAlone) {
  std::atomic<int> inner{0};
  parallel_for(8, 4, [&](int64_t, int) {
    const auto caller = std::this_thread::get_id();
    parallel_for(5, 4, [&](int64_t, int worker) {
      EXPECT_EQ(worker, 0);
      EXPECT_EQ(std::this_thread::get_id(), caller);
      ++inner;
    });
  });
  EXPECT_EQ(inner, 40);
}

TEST(Team, CallersOnDifferentThreadsDoNotMeet) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> sum{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        parallel_for(100, 3, [&](int64_t task, int) { sum += task; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, int64_t{4} * 200 * 4950);
}

TEST(Team, SleepingHelpersWakeAgain) {
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // beyond the helpers' patience
    std::atomic<int> done{0};
    parallel_for(50, 3, [&](int64_t, int) { ++done; });
    ASSERT_EQ(done, 50);
  }
}

TEST(SideJob, RunsBesideWhatItsCallerSharesOut) {
  for (const int threads : {2, 4}) {
    std::atomic<int> inner{0};
    SideJob job(
        [&] { parallel_for(100, threads, [&](int64_t, int worker) { inner += 1 + worker; }); });
    for (int round = 1; round <= 200; ++round) {
      job.offer(threads);
      std::vector<int> done(100, 0);
      parallel_for(100, threads, [&](int64_t task, int) { ++done[static_cast<size_t>(task)]; });
      ASSERT_EQ(done, std::vector<int>(100, 1));
      job.withdraw();
      ASSERT_EQ(inner % 100, 0);  // all of it, by one worker, or nothing
      ASSERT_LE(inner, round * 100);
    }
  }
}

TEST(SideJob, IsBegunByAHelper) {
  std::atomic<bool> begun{false};
  SideJob job([&] { begun = true; });
  job.offer(2);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!begun && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(begun);
}

TEST(SideJob, OneThreadNeverBeginsIt) {
  bool begun = false;
  SideJob job([&] { begun = true; });
  job.offer(1);
  job.withdraw();
  EXPECT_FALSE(begun);
}

}  // namespace
}  // namespace kvcast

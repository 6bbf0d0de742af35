#include "base/team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <new>
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

TEST(Team, CallsForMoreAndFewerThreadsFollowEachOther) {
  for (int round = 0; round < 200; ++round) {
    for (const int threads : {2, 16, 3, 40, 7}) {
      std::vector<int> done(100, 0);
      parallel_for(100, threads, [&](int64_t task, int worker) {
        ASSERT_LT(worker, threads);
        ++done[static_cast<size_t>(task)];
      });
      ASSERT_EQ(done, std::vector<int>(100, 1)) << threads << " threads, round " << round;
    }
  }
}

TEST(Team, HelpersThatWereNotNeededForLongComeWhenTheyAre) {
  for (int round = 0; round < 20; ++round) {
    for (int turn = 0; turn < 300; ++turn) run_together(2, [](int) {});
    // Nobody goes before all four have come.
    std::atomic<int> come{0};
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    run_together(4, [&](int) {
      ++come;
      while (come < 4 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    });
    ASSERT_EQ(come, 4) << round;
  }
}

TEST(Team, AHelpersLongTaskIsWaitedFor) {
  for (int round = 0; round < 3; ++round) {
    std::atomic<bool> begun{false};
    bool ended = false;
    const auto caller = std::this_thread::get_id();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    run_together(2, [&](int) {
      if (std::this_thread::get_id() == caller) {  // leaves once the helper is at work
        while (!begun && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
        return;
      }
      begun = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // beyond the caller's patience
      ended = true;
    });
    ASSERT_TRUE(begun);
    EXPECT_TRUE(ended);
  }
}

TEST(SharedTasks, AreGivenOutOnceEachWhoeverAsks) {
  for (const int workers : {1, 3, 8, 33, 200}) {
    for (const int64_t count : {0, 1, 7, 100}) {
      for (const int worker : {0, workers - 1}) {  // the others never come
        SharedTasks tasks(count, workers);
        std::vector<int> given(static_cast<size_t>(count), 0);
        for (int64_t task = tasks.take(worker); task != SharedTasks::kNone;
             task = tasks.take(worker)) {
          ++given.at(static_cast<size_t>(task));
        }
        EXPECT_EQ(given, std::vector<int>(static_cast<size_t>(count), 1));
        EXPECT_EQ(tasks.take(0), SharedTasks::kNone);
      }
    }
  }
}

TEST(Team, WhatACallThrowsIsThrownOnWhenAllHaveReturned) {
  for (int64_t failing = 0; failing < 20; ++failing) {
    std::atomic<int> inside{0}, done{0};
    const auto run = [&] {
      parallel_for(20, 4, [&](int64_t task, int) {
        ++inside;
        std::this_thread::yield();
        --inside;
        if (task == failing) throw std::bad_alloc();
        ++done;
      });
    };
    EXPECT_THROW(run(), std::bad_alloc);
    EXPECT_EQ(inside, 0);
    EXPECT_LT(done, 20);
    // The team is as good as new.
    done = 0;
    parallel_for(50, 4, [&](int64_t, int) { ++done; });
    EXPECT_EQ(done, 50);
  }
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

}  // namespace
}  // namespace kvcast

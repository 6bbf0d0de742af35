#include "base/thread_choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <functional>
#include <random>

namespace kvcast {
namespace {

using Time = std::function<double(int)>;

/// Total time of `calls` calls of which one with n threads takes time(n), moved by noise, over that
/// of calls that take `best`.
double play(ThreadChoice& choice, int calls, const Time& time, double best, double noise = 0,
            uint32_t seed = 1) {
  std::minstd_rand generator(seed);
  std::normal_distribution<double> normal;
  double total = 0;
  for (int i = 0; i < calls; ++i) {
    const ThreadChoice::Call call = choice.begin();
    const double ms = time(call.threads);
    choice.end(call, {1, 1, i}, ms * std::exp(noise * std::fabs(normal(generator))));
    total += ms;
  }
  return total / (best * calls);
}

double steep(int threads) { return 1.0 / threads; }
/// Memory feeds 20 threads; each beyond costs something.
double crowded(int threads) { return threads <= 20 ? 20.0 / threads : 1.0 + 0.01 * (threads - 20); }
/// Something else has all but six processors.
double overrun(int threads) { return threads > 6 ? 1.0 + 0.1 * threads : 6.0 / threads; }

TEST(ThreadChoice, TakesFewerThreadsWhereThatIsFaster) {
  ThreadChoice choice(32);
  EXPECT_EQ(choice.threads(), 32);
  play(choice, 100, crowded, 1);
  EXPECT_EQ(choice.threads(), 24);
  EXPECT_LT(play(choice, 1000, crowded, crowded(24)), 1.02);
}

TEST(ThreadChoice, KeepsAllThreadsWhereEachBringsSomething) {
  for (const int most : {2, 4, 6, 16, 32}) {
    ThreadChoice choice(most);
    EXPECT_LT(play(choice, 48, steep, steep(most)), 1.03) << most;
    EXPECT_LT(play(choice, 1000, steep, steep(most)), 1.01) << most;
  }
}

TEST(ThreadChoice, ComesBackWhenTheMachineIsFreeAgain) {
  for (const int crowded_calls : {300, 3000, 20000}) {
    ThreadChoice choice(16);
    play(choice, crowded_calls, overrun, 1);
    EXPECT_LE(choice.threads(), 6);
    play(choice, 300, steep, 1);
    EXPECT_EQ(choice.threads(), 16) << crowded_calls;
  }
}

TEST(ThreadChoice, NoiseCostsLittle) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    ThreadChoice level(16), other(16);
    EXPECT_LT(play(other, 2000, steep, 1.0 / 16, 0.1, seed), 1.05) << seed;
    EXPECT_LT(play(level, 2000, crowded, crowded(16), 0.1, seed), 1.05) << seed;
  }
}

// Answers of few tokens after long and short prompts in turns: their steps in phase with trials.
TEST(ThreadChoice, ShortAnswersOfOtherContextsAreNotCompared) {
  for (const int tokens : {1, 2, 3, 4, 6}) {
    ThreadChoice choice(32);
    double total = 0;
    for (int i = 0; i < 20000; ++i) {
      const bool is_long = i / tokens % 2 == 1;
      const ThreadChoice::Call call = choice.begin();
      const double relative = 32 * steep(call.threads);
      choice.end(call, {1, 1, (is_long ? 30000 : 100) + i % tokens},
                 is_long ? 1.5 * relative : relative);
      total += relative;
    }
    EXPECT_LT(total / 20000, 1.01) << tokens;
  }
}

TEST(ThreadChoice, CallsWithOtherRowsAreNotCompared) {
  ThreadChoice choice(32);
  for (int i = 0; i < 2000; ++i) {
    choice.end(choice.begin(), {1 + i % 2, 1, i}, i % 2 == 0 ? 1.0 : 100.0);
  }
  EXPECT_EQ(choice.threads(), 32);
}

// Steps with drafts: none of a series is long enough for a round.
TEST(ThreadChoice, WhereNothingCanBeComparedAllThreadsAreTaken) {
  ThreadChoice choice(16);
  play(choice, 600, overrun, 1);
  ASSERT_LE(choice.threads(), 6);
  double total = 0;
  for (int i = 0; i < 4000; ++i) {
    const ThreadChoice::Call call = choice.begin();
    choice.end(call, {i % 5 == 4 ? 1 : 4, 1, i}, steep(call.threads));
    total += 16 * steep(call.threads);
  }
  EXPECT_EQ(choice.threads(), 16);
  EXPECT_LT(total / 4000, 1.4);  // some 512 calls with few threads, then none
}

TEST(ThreadChoice, ATrialThatIsBrokenOffIsRare) {
  for (const int length : {4, 5}) {
    ThreadChoice choice(16);
    double total = 0;
    for (int i = 0; i < 20000; ++i) {
      const ThreadChoice::Call call = choice.begin();
      choice.end(call, {1 + i / length % 2, 1, i}, steep(call.threads));
      total += 16 * steep(call.threads);
    }
    EXPECT_LT(total / 20000, 1.01) << length;
  }
}

// Several threads run one model, each call taking the longer the fewer threads it has.
TEST(ThreadChoice, CallsThatOverlapMoveNothing) {
  for (const size_t callers : {2, 3, 4, 7}) {
    ThreadChoice choice(16);
    std::deque<ThreadChoice::Call> running;
    for (int i = 0; i < 20000; ++i) {
      running.push_back(choice.begin());
      if (running.size() < callers) continue;
      choice.end(running.front(), {1, 1, i}, steep(running.front().threads));
      running.pop_front();
      ASSERT_EQ(choice.threads(), 16) << callers;
    }
  }
}

TEST(ThreadChoice, OneThreadStaysOne) {
  ThreadChoice choice(1);
  play(
      choice, 100, [](int) { return 1.0; }, 1);
  EXPECT_EQ(choice.threads(), 1);
}

}  // namespace
}  // namespace kvcast

#include "base/thread_choice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

namespace kvcast {
namespace {

/// Total time of `calls` calls of which one with n threads takes time(n), moved by noise, in units
/// of `best`.
double play(ThreadChoice& choice, int calls, const std::function<double(int)>& time, double best,
            double noise = 0, uint32_t seed = 1) {
  std::minstd_rand generator(seed);
  std::normal_distribution<double> normal;
  double total = 0;
  for (int i = 0; i < calls; ++i) {
    const double ms = time(choice.threads()) * std::exp(noise * std::fabs(normal(generator)));
    choice.took(1, ms);
    total += time(choice.threads());
  }
  return total / (best * calls);
}

/// Memory feeds 20 threads; each beyond costs something.
double crowded(int threads) { return threads <= 20 ? 20.0 / threads : 1.0 + 0.01 * (threads - 20); }

TEST(ThreadChoice, TakesFewerThreadsWhereThatIsFaster) {
  ThreadChoice choice(32);
  EXPECT_EQ(choice.threads(), 32);
  play(choice, 100, crowded, 1);
  EXPECT_EQ(choice.threads(), 24);
  EXPECT_LT(play(choice, 1000, crowded, crowded(24)), 1.01);
}

TEST(ThreadChoice, KeepsAllThreadsWhereEachBringsSomething) {
  for (const int most : {2, 4, 6, 16, 32}) {
    ThreadChoice choice(most);
    const auto time = [](int threads) { return 1.0 / threads; };
    EXPECT_LT(play(choice, 48, time, time(most)), 1.03) << most;
    EXPECT_LT(play(choice, 1000, time, time(most)), 1.01) << most;
  }
}

TEST(ThreadChoice, ComesBackWhenTheMachineIsFreeAgain) {
  ThreadChoice choice(16);
  play(
      choice, 600, [](int threads) { return threads > 6 ? 1.0 + 0.1 * threads : 1.0; }, 1);
  EXPECT_LE(choice.threads(), 6);
  play(
      choice, 6000, [](int threads) { return 1.0 / threads; }, 1);
  EXPECT_EQ(choice.threads(), 16);
}

TEST(ThreadChoice, NoiseCostsLittle) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    ThreadChoice level(16), steep(16);
    EXPECT_LT(play(
                  steep, 2000, [](int threads) { return 1.0 / threads; }, 1.0 / 16, 0.1, seed),
              1.05)
        << seed;
    EXPECT_LT(play(level, 2000, crowded, crowded(16), 0.1, seed), 1.05) << seed;
  }
}

TEST(ThreadChoice, CallsOfAnotherKindAreNotCompared) {
  ThreadChoice choice(32);
  for (int i = 0; i < 2000; ++i) choice.took(i % 2, i % 2 == 0 ? 1.0 : 100.0);
  EXPECT_EQ(choice.threads(), 32);
}

TEST(ThreadChoice, OneThreadStaysOne) {
  ThreadChoice choice(1);
  play(
      choice, 100, [](int) { return 1.0; }, 1);
  EXPECT_EQ(choice.threads(), 1);
}

}  // namespace
}  // namespace kvcast

// What `refine=auto` chooses on machines that are made up.
#include "prefill/refine_pace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace kvcast {
namespace {

using Depth = RefinePace::Depth;

struct Course {
  int64_t last_rows = 0;  ///< the most of the last steps: now and then a step refines nothing
  double ms_of_last = 0;  ///< mean
};

/// Steps of one answer on a machine where `rows` rows in all take step_ms(rows).
Course decode(RefinePace& pace, int64_t steps, const std::function<double(int64_t)>& step_ms,
              int64_t decode_rows = 1, Depth depth = Depth::kAllLayers) {
  constexpr int64_t kLast = 96;
  Course course;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t rows = pace.rows(decode_rows, depth);
    const double ms = step_ms(decode_rows + rows);
    pace.observe(decode_rows, rows, depth, ms);
    if (step < steps - kLast) continue;
    course.last_rows = std::max(course.last_rows, rows);
    course.ms_of_last += ms / kLast;
  }
  return course;
}

TEST(RefinePace, RefinesNothingUntilAStepAloneIsKnown) {
  RefinePace pace;
  EXPECT_EQ(pace.rows(1, Depth::kAllLayers), 0);
  pace.observe(1, 0, Depth::kAllLayers, 20);
  EXPECT_EQ(pace.rows(1, Depth::kAllLayers), 0);
  pace.observe(1, 0, Depth::kAllLayers, 20);
  EXPECT_GT(pace.rows(1, Depth::kAllLayers), 0);
}

TEST(RefinePace, FillsTheTimeThatStepsWaitForMemory) {
  RefinePace pace;  // memory 24 ms, arithmetic 2 ms a row beside it: the knee is at 12
  const Course course = decode(
      pace, 400, [](int64_t rows) { return std::max(24.0, 2.0 * static_cast<double>(rows)); });
  EXPECT_GE(course.last_rows + 1, 12);
  EXPECT_LE(course.ms_of_last, 24 / 0.85);
}

TEST(RefinePace, KeepsDecodingAt85PercentWhereArithmeticAddsToMemory) {
  for (const double row_ms : {0.5, 1.0, 2.0, 8.0}) {
    RefinePace pace;
    const Course course = decode(
        pace, 400, [&](int64_t rows) { return 24 + row_ms * static_cast<double>(rows - 1); });
    EXPECT_LE(course.ms_of_last, 24 / 0.85) << row_ms;
    if (row_ms <= 1) {
      EXPECT_GE(course.last_rows, 4 / row_ms - 1) << row_ms;
    }
  }
}

TEST(RefinePace, OneDisturbedStepDecidesNothing) {
  RefinePace pace;
  int64_t step = 0;
  const Course course = decode(pace, 400, [&](int64_t rows) {
    const double undisturbed = std::max(24.0, 2.0 * static_cast<double>(rows));
    return ++step % 7 == 3 ? 3 * undisturbed : undisturbed;
  });
  EXPECT_GE(course.last_rows + 1, 10);
}

TEST(RefinePace, KnowsBatchesAndDepthsApart) {
  RefinePace pace;
  const auto cheap = [](int64_t) { return 20.0; };
  const auto dear = [](int64_t rows) { return 20.0 * static_cast<double>(rows); };
  EXPECT_GE(decode(pace, 300, cheap, 1, Depth::kAllLayers).last_rows, 32);
  EXPECT_EQ(decode(pace, 300, dear, 1, Depth::kLastLayers).ms_of_last > 0, true);
  EXPECT_GE(decode(pace, 300, cheap, 4, Depth::kAllLayers).last_rows, 32);
  EXPECT_GE(decode(pace, 300, cheap, 1, Depth::kAllLayers).last_rows, 32);
}

}  // namespace
}  // namespace kvcast

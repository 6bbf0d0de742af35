#include "report/frontier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace kvcast::report {
namespace {

using testing::ElementsAre;

TEST(Frontier, KeepsWhatNoOtherPointBeats) {
  //                                   0: exact   1           2: beaten     3            4: beaten
  const std::vector<CostQuality> points = {
      {1, 0.9}, {0.5, 0.7}, {0.6, 0.65}, {0.25, 0.4}, {0.25, 0.3}};
  EXPECT_THAT(pareto_frontier(points), ElementsAre(3, 1, 0));
}

TEST(Frontier, OfEqualPointsCountsAll) {
  EXPECT_THAT(pareto_frontier({{0.5, 0.7}, {0.5, 0.7}, {0.7, 0.7}}), ElementsAre(0, 1));
}

TEST(Frontier, PassesOverWhatIsNotFinite) {
  EXPECT_THAT(pareto_frontier({{NAN, 1}, {0.1, NAN}, {0.5, 0.5}}), ElementsAre(2));
  EXPECT_TRUE(pareto_frontier({}).empty());
}

TEST(Frontier, HoldsTheDefinitionOnRandomPoints) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> value(0, 9);  // ties are frequent
  for (int round = 0; round < 200; ++round) {
    std::vector<CostQuality> points;
    for (int i = 0; i < 12; ++i) points.push_back({value(random) * 1.0, value(random) * 1.0});
    std::vector<size_t> expected;
    for (size_t i = 0; i < points.size(); ++i) {
      const bool beaten = std::ranges::any_of(points, [&](const CostQuality& other) {
        const CostQuality& p = points[i];
        return (other.cost <= p.cost && other.quality > p.quality) ||
               (other.cost < p.cost && other.quality >= p.quality);
      });
      if (!beaten) expected.push_back(i);
    }
    EXPECT_THAT(pareto_frontier(points), testing::UnorderedElementsAreArray(expected));
  }
}

TEST(EqualCost, LiesOnTheLineBetweenTwoFrontierPoints) {
  const std::vector<CostQuality> points = {{1, 23.57}, {0.75, 15.0}, {0.25, 5.0}, {0.8, 10.0}};
  EXPECT_DOUBLE_EQ(*quality_at_cost(points, 0.5), 10);
  EXPECT_DOUBLE_EQ(*quality_at_cost(points, 0.25), 5);
  EXPECT_DOUBLE_EQ(*quality_at_cost(points, 0.75), 15);
  EXPECT_NEAR(*quality_at_cost(points, 0.8), 15 + 8.57 * 0.2, 1e-12);  // {0.8, 10} is beaten
}

TEST(EqualCost, IsNotExtrapolatedDownwards) {
  const std::vector<CostQuality> points = {{1, 0.9}, {0.5, 0.7}};
  EXPECT_FALSE(quality_at_cost(points, 0.4));
  EXPECT_FALSE(quality_at_cost({}, 0.4));
}

TEST(EqualCost, AboveTheCostliestPointIsThatPoints) {
  EXPECT_DOUBLE_EQ(*quality_at_cost({{1, 0.9}, {0.5, 0.7}}, 1.5), 0.9);
}

}  // namespace
}  // namespace kvcast::report

#include "report/frontier.h"

#include <algorithm>
#include <cmath>

namespace kvcast::report {

std::vector<size_t> pareto_frontier(const std::vector<CostQuality>& points) {
  std::vector<size_t> order;
  for (size_t i = 0; i < points.size(); ++i) {
    if (std::isfinite(points[i].cost) && std::isfinite(points[i].quality)) order.push_back(i);
  }
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    if (points[a].cost != points[b].cost) return points[a].cost < points[b].cost;
    return points[a].quality > points[b].quality;
  });
  std::vector<size_t> frontier;
  for (const size_t i : order) {
    if (!frontier.empty()) {
      const CostQuality& best = points[frontier.back()];
      const bool equal = points[i].cost == best.cost && points[i].quality == best.quality;
      if (points[i].quality <= best.quality && !equal) continue;
    }
    frontier.push_back(i);
  }
  return frontier;
}

std::optional<double> quality_at_cost(const std::vector<CostQuality>& points, double cost) {
  std::optional<CostQuality> before;
  for (const size_t i : pareto_frontier(points)) {
    const CostQuality& point = points[i];
    if (point.cost == cost) return point.quality;
    if (point.cost > cost) {
      if (!before) return std::nullopt;
      const double share = (cost - before->cost) / (point.cost - before->cost);
      return before->quality + share * (point.quality - before->quality);
    }
    before = point;
  }
  if (!before) return std::nullopt;
  return before->quality;
}

}  // namespace kvcast::report

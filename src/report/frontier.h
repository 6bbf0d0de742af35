// Cost against quality: which points are worth having, and what lies between them.
#pragma once

#include <optional>
#include <vector>

namespace kvcast::report {

/// Quality is better the higher; cost the lower.
struct CostQuality {
  double cost = 0, quality = 0;
};

/// Indices of the points that no other point beats: none costs at most as much and is better, or
/// costs less and is at least as good. Of equal points all count. Ascending cost. Points that are
/// not finite never count.
std::vector<size_t> pareto_frontier(const std::vector<CostQuality>& points);

/// Best quality within a cost, on the straight lines between a method's frontier points: a mixture
/// of two operating points, one of them chosen at random for each request, has exactly these mean
/// costs and qualities. Above the costliest frontier point that point's; nullopt below the
/// cheapest, since nothing is extrapolated.
std::optional<double> quality_at_cost(const std::vector<CostQuality>& points, double cost);

}  // namespace kvcast::report

#include "base/paired_ratio.h"

#include <algorithm>
#include <vector>

namespace kvcast {

PairedRatio paired_ratio(std::span<const double> first, std::span<const double> second) {
  // Less than this nobody notices, and what drifts with the machine may well be as much.
  constexpr double kLeastDifference = 1.03;
  std::vector<double> ratios;
  for (size_t i = 0; i < first.size() && i < second.size(); ++i) {
    ratios.push_back(first[i] / second[i]);
  }
  if (ratios.empty()) return {};
  std::ranges::sort(ratios);
  const size_t middle = ratios.size() / 2;
  PairedRatio result;
  result.low = ratios.front();
  result.high = ratios.back();
  result.median =
      ratios.size() % 2 == 1 ? ratios[middle] : (ratios[middle - 1] + ratios[middle]) / 2;
  const bool same_order = result.low > 1 || result.high < 1;
  const bool matters = result.median > kLeastDifference || result.median < 1 / kLeastDifference;
  result.is_certain = same_order && matters && static_cast<int>(ratios.size()) >= kCertainRounds;
  return result;
}

}  // namespace kvcast

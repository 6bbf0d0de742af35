// Byte pair encoding as its definition says it: the slow twin of BpeModel.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace kvcast {

struct SlowBpe {
  struct Merge {
    uint32_t rank = 0;
    int32_t result = -1;
  };
  std::map<std::pair<int32_t, int32_t>, Merge> merges;

  /// Merges the pair of the lowest rank, the leftmost of equal ones, until there is none.
  [[nodiscard]] std::vector<int32_t> encode(std::vector<int32_t> tokens) const {
    for (;;) {
      size_t best_at = tokens.size();
      const Merge* best = nullptr;
      for (size_t at = 0; at + 1 < tokens.size(); ++at) {
        const auto found = merges.find({tokens[at], tokens[at + 1]});
        if (found == merges.end() || (best && found->second.rank >= best->rank)) continue;
        best = &found->second;
        best_at = at;
      }
      if (!best) return tokens;
      tokens[best_at] = best->result;
      tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
    }
  }
};

}  // namespace kvcast

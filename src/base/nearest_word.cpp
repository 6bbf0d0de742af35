#include "base/nearest_word.h"

#include <algorithm>
#include <vector>

namespace kvcast {
namespace {

/// Edit distance with swaps of neighbours (optimal string alignment).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> least(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        least[i][j] = i + j;
        continue;
      }
      const size_t replaced = least[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      least[i][j] = std::min({least[i - 1][j] + 1, least[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        least[i][j] = std::min(least[i][j], least[i - 2][j - 2] + 1);
      }
    }
  }
  return least[a.size()][b.size()];
}

}  // namespace

std::string nearest_word(std::string_view typed, std::span<const std::string> words) {
  constexpr size_t kLongest = 64;  // nobody mistypes more; the table stays small
  if (typed.size() > kLongest) return {};
  std::string nearest;
  size_t least = std::max<size_t>(1, typed.size() / 3) + 1;
  for (const std::string& word : words) {
    if (word.size() > kLongest) continue;
    const size_t edits = distance(typed, word);
    if (edits < least) {
      least = edits;
      nearest = word;
    }
  }
  return nearest;
}

}  // namespace kvcast

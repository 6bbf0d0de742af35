#include "train/kvp_pass.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/data/random.h"

namespace kvcast::train {
namespace {

constexpr int64_t kGrid = 16;  // splits are multiples of this share of the sequence

double fraction(double x) { return x - std::floor(x); }
double unit(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1p-53; }

}  // namespace

KvpPass kvp_pass_at(const KvpRecipe& recipe, int64_t step) {
  // How many of the steps before this one were split, and of those up to it.
  const auto split_steps = [&](int64_t steps) {
    return static_cast<int64_t>(std::floor(static_cast<double>(steps) * recipe.split_share));
  };
  const int64_t earlier = split_steps(step);
  if (split_steps(step + 1) == earlier) return {};

  const uint64_t seed = recipe.run.seed;
  const double at = fraction(unit(mix(seed, hash_text("split"))) +
                             static_cast<double>(earlier) / std::numbers::phi);
  const double share = recipe.split_from + at * (recipe.split_to - recipe.split_from);
  const int64_t tokens = recipe.data.sequence_tokens;
  const int64_t sixteenths = std::llround(share * kGrid);
  KvpPass pass;
  pass.predicted_tokens = std::clamp<int64_t>(sixteenths * tokens / kGrid, 1, tokens - 1);
  pass.tail_tokens = 1 + static_cast<int64_t>(mix(mix(seed, hash_text("tail")), step) %
                                              static_cast<uint64_t>(recipe.tail_max));
  return pass;
}

double mean_base_share(const KvpRecipe& recipe) {
  const double rest = 1.0 - (recipe.split_from + recipe.split_to) / 2.0;
  return 1.0 - recipe.split_share + recipe.split_share * rest;
}

double mean_read_share(const KvpRecipe& recipe) {
  const double prefix = (recipe.split_from + recipe.split_to) / 2.0;
  return 1.0 - recipe.split_share + recipe.split_share * prefix;
}

}  // namespace kvcast::train

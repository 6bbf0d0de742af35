#include "train/sequence_splits.h"

#include <algorithm>
#include <cmath>

#include "train/data/random.h"

namespace kvcast::train {
namespace {

double unit(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1p-53; }

/// [B, T - length + 1] int64: 1 where the pattern begins.
Tensor beginnings(const Tensor& ids, const std::vector<int64_t>& pattern) {
  const int64_t places = ids.size(1) - static_cast<int64_t>(pattern.size()) + 1;
  Tensor found = at::ones({ids.size(0), places}, ids.options().dtype(at::kBool));
  for (size_t k = 0; k < pattern.size(); ++k) {
    found.logical_and_(ids.narrow(1, static_cast<int64_t>(k), places).eq(pattern[k]));
  }
  return found.to(at::kLong);
}

}  // namespace

Tensor sequence_splits(const AdaptRecipe& recipe, int64_t step, const Tensor& ids) {
  const int64_t count = ids.size(0), tokens = ids.size(1);
  Tensor anywhere = at::empty({count}, at::kLong), choice = at::empty({count}, at::kDouble);
  Tensor at_end = at::empty({count}, at::kBool);
  const uint64_t seed =
      mix(mix(recipe.run.seed, hash_text("sequence splits")), static_cast<uint64_t>(step));
  for (int64_t b = 0; b < count; ++b) {
    const uint64_t own = mix(seed, static_cast<uint64_t>(b));
    const double share =
        recipe.split_from + unit(mix(own, 0)) * (recipe.split_to - recipe.split_from);
    anywhere.data_ptr<int64_t>()[b] = std::clamp<int64_t>(
        std::llround(share * static_cast<double>(tokens)), 1, std::max<int64_t>(1, tokens - 1));
    choice.data_ptr<double>()[b] = unit(mix(own, 1));
    at_end.data_ptr<bool>()[b] = unit(mix(own, 2)) < recipe.prompt_end_share;
  }
  const auto on_device = [&](const Tensor& x) { return x.to(ids.device(), /*non_blocking=*/true); };
  anywhere = on_device(anywhere);
  const auto length = static_cast<int64_t>(recipe.prompt_end.size());
  if (length == 0 || length >= tokens) return anywhere;
  const Tensor seen = beginnings(ids, recipe.prompt_end).cumsum(1);  // [B, places]
  const Tensor ends = seen.select(1, seen.size(1) - 1);
  const Tensor wanted = (on_device(choice) * ends).floor().to(at::kLong) + 1;
  const Tensor first = seen.ge(wanted.unsqueeze(1)).to(at::kLong).argmax(1);
  const Tensor end = (first + (length - 1)).clamp(1, tokens - 1);
  return at::where(ends.gt(0).logical_and(on_device(at_end)), end, anywhere);
}

}  // namespace kvcast::train

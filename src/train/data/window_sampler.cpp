#include "train/data/window_sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "train/data/error.h"
#include "train/data/random.h"

namespace kvcast::train {

WindowSampler::WindowSampler(const DataRecipe& recipe, uint64_t seed)
    : index_(read_shard_index(recipe.shards)),
      sequence_tokens_(recipe.sequence_tokens),
      begin_with_bos_(recipe.begin_with_bos),
      seed_(seed) {
  for (const auto& source : index_.sources) {
    Source entry{.stream = TokenStream(recipe.shards, source.train, index_.bytes_per_token(),
                                       index_.vocab_size),
                 .windows = 0,
                 .samples_before = samples_per_pass_,
                 .samples = 0,
                 .in_blocks = source.block_tokens == sequence_tokens_};
    // One window less than fit, so that a random offset leaves all of them inside.
    entry.windows = (entry.stream.size() - 1) / sequence_tokens_ - 1;
    if (entry.windows < 1) continue;  // too small for this sequence length
    entry.samples =
        std::max<int64_t>(1, std::llround(source.epochs * static_cast<double>(entry.windows)));
    samples_per_pass_ += entry.samples;
    sources_.push_back(std::move(entry));
  }
  if (sources_.empty()) {
    throw TrainError(fmt::format("{}: no source has the {} tokens that windows of {} need",
                                 recipe.shards.string(), 2 * sequence_tokens_ + 1,
                                 sequence_tokens_));
  }
}

void WindowSampler::read(int64_t index, int64_t* out) const {
  const auto pass = static_cast<uint64_t>(index / samples_per_pass_);
  const auto n = static_cast<uint64_t>(samples_per_pass_);
  const auto at = static_cast<int64_t>(
      permute(static_cast<uint64_t>(index % samples_per_pass_), n, mix(seed_, pass)));
  const auto source = std::find_if(sources_.begin(), sources_.end(), [&](const Source& s) {
    return at < s.samples_before + s.samples;
  });
  // The k-th sample of this source since the beginning of training.
  const int64_t k = static_cast<int64_t>(pass) * source->samples + at - source->samples_before;
  const auto windows = static_cast<uint64_t>(source->windows);
  const uint64_t epoch = static_cast<uint64_t>(k) / windows;
  const uint64_t epoch_seed =
      mix(mix(seed_, ~uint64_t{0}), mix(epoch, static_cast<uint64_t>(source - sources_.begin())));
  const auto offset =
      source->in_blocks
          ? 0
          : static_cast<int64_t>(epoch_seed % static_cast<uint64_t>(sequence_tokens_));
  // Permuted here too, so that a pass with part of an epoch draws from the whole source.
  const auto window =
      static_cast<int64_t>(permute(static_cast<uint64_t>(k) % windows, windows, epoch_seed));
  const int64_t first = offset + window * sequence_tokens_;
  source->stream.copy(first, sequence_tokens_ + 1, out);
  if (begin_with_bos_) out[0] = index_.bos_token;
}

}  // namespace kvcast::train

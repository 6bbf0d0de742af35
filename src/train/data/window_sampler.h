// Which tokens each training sample sees.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "train/data/recipe.h"
#include "train/data/shard_index.h"

namespace kvcast::train {

/// Windows of sequence_tokens + 1 tokens. One pass over the data shows every window of every source
/// `epochs` times, in random order without replacement; the windows' edges move by a random offset
/// from epoch to epoch, unless the source is in blocks of that length. Sample n is a function of
/// (seed, n) alone: nothing has to be saved to resume. Thread-safe.
class WindowSampler {
 public:
  WindowSampler(const DataRecipe& recipe, uint64_t seed);

  /// Sample `index` to `out`, sequence_tokens + 1 ids: inputs are the first, targets the last
  /// sequence_tokens of them.
  void read(int64_t index, int64_t* out) const;

  [[nodiscard]] const ShardIndex& index() const { return index_; }
  [[nodiscard]] int64_t sequence_tokens() const { return sequence_tokens_; }
  /// Samples in one pass over the data.
  [[nodiscard]] int64_t samples_per_pass() const { return samples_per_pass_; }

 private:
  struct Source {
    TokenStream stream;
    int64_t windows;         // in one epoch of this source
    int64_t samples_before;  // in a pass, those of the sources before it
    int64_t samples;         // in a pass: about epochs * windows
    bool in_blocks;          // windows have no offset
  };
  ShardIndex index_;
  std::vector<Source> sources_;
  int64_t sequence_tokens_, samples_per_pass_ = 0;
  bool begin_with_bos_;
  uint64_t seed_;
};

}  // namespace kvcast::train

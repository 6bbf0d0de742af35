// `shards`: text in, token shards out.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "train/data/recipe.h"
#include "train/data/shard_index.h"

namespace kvcast::train {

/// Appends a text's ids, without BOS and EOS.
using Encode = std::function<void(std::string_view text, std::vector<int32_t>& ids)>;

/// The tokenizer as the shard writer needs it; without SentencePiece, so that tests can bring
/// another one.
struct TextEncoder {
  int64_t vocab_size = 0;
  int64_t bos_token = 1, eos_token = 2;
  std::function<Encode()> for_thread;  ///< called on every thread that encodes
};

/// Told after every block of documents.
struct ShardProgress {
  std::string source;
  int64_t documents = 0, tokens = 0, text_bytes = 0;  // so far, all sources
};

/// Writes recipe.output: every source's documents in order, whole documents held out by a hash of
/// (seed, source, document number). The result depends on the recipe and the text alone, not on
/// the number of threads. Memory: a few
/// blocks of about 1 MB of text and their tokens for each thread, or the longest documents.
ShardIndex write_shards(const ShardsRecipe& recipe, const TextEncoder& encoder,
                        const std::function<void(const ShardProgress&)>& progress = {});

}  // namespace kvcast::train

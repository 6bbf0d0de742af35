// `heldout`: what models and bundles are worth on held-out documents.
#pragma once

#include <filesystem>
#include <vector>

#include "io/json.h"
#include "train/torch.h"

namespace kvcast::train {

struct HeldoutOptions {
  std::vector<std::filesystem::path> models;  ///< model directories and bundles
  std::filesystem::path alone;       ///< a bundle's auxiliary trained by itself; may be empty
  std::filesystem::path shards;      ///< directory that `shards` wrote
  int64_t prefix_tokens = 384;       ///< the prompt, BOS included
  int64_t suffix_tokens = 128;       ///< scored
  std::vector<int64_t> tails = {1};  ///< prompt tokens that the base runs itself; 1 is the paper
  int64_t max_windows = 1024;        ///< evenly spread over the held-out text; 0: all
  int64_t batch_windows = 16;
  at::Device device = at::kCPU;
  at::ScalarType compute = at::kFloat;
};

/// {"windows", "prefix_tokens", "suffix_tokens", "results": [one object for each model]}: negative
/// log-likelihoods in nats a token, over windows of BOS and prefix + suffix - 1 tokens of one
/// held-out document each. "suffix_nll" scores the suffix after the prefix was read exactly by the
/// base, by the auxiliary alone, and as kv-prediction:tail=N does at inference (method §3): the
/// cache of all but the last N prompt tokens predicted, everything after them run by the base with
/// its own keys and values. "window_nll" scores every token of the windows, without prediction.
/// "share_of_gap_closed" is, for each tail, where KV prediction lies between `alone`, or else the
/// bundle's own auxiliary, (0) and the exact base (1). Every loss comes with its standard error
/// over windows.
Json heldout(const HeldoutOptions& options);

}  // namespace kvcast::train

// `heldout`: what a model or bundle is worth on held-out documents.
#pragma once

#include <filesystem>

#include "io/json.h"
#include "train/torch.h"

namespace kvcast::train {

struct HeldoutOptions {
  std::filesystem::path model;   ///< model directory or bundle
  std::filesystem::path shards;  ///< directory that `shards` wrote
  int64_t prefix_tokens = 384;   ///< the prompt, BOS included
  int64_t suffix_tokens = 128;   ///< scored
  int64_t tail_tokens = 1;       ///< prompt tokens that the base runs itself; 1 is the paper
  int64_t max_windows = 1024;    ///< evenly spread over the held-out text; 0: all
  int64_t batch_windows = 16;
  at::Device device = at::kCPU;
  at::ScalarType compute = at::kFloat;
};

/// Negative log-likelihoods in nats a token, over windows of BOS and prefix + suffix - 1 tokens of
/// one held-out document each. "suffix_nll" scores the suffix after the prefix was read exactly by
/// the base, by the auxiliary alone, and as kv-prediction:tail=N does at inference (method §3): the
/// cache of all but the last N prompt tokens predicted, everything after them run by the base with
/// its own keys and values. "window_nll" scores every token of the windows, without prediction.
Json heldout(const HeldoutOptions& options);

}  // namespace kvcast::train

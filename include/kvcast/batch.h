// Many prompts on one model at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kvcast/model.h"
#include "kvcast/result.h"
#include "kvcast/session.h"

namespace kvcast {

/// Natural-log probabilities under the raw logits, before temperature and filters.
struct TokenScore {
  int32_t token = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  ///< most probable first; as many as were asked for
};

/// A continuation to score behind a context.
struct ScoreRequest {
  std::vector<int32_t> context;       ///< at least one token; read by the prefill strategy
  std::vector<int32_t> continuation;  ///< read as the model reads its own answer
};

struct BatchOptions {
  /// Answers decoded together.
  int64_t max_batch = 64;
  /// Bytes that KV caches may take, beginnings kept for later prompts included.
  int64_t max_cache_bytes = int64_t{2} << 30;
};

/// Answers and scores many prompts by continuous batching on a thread of its own. Beginnings that
/// prompts share are run once. Any number of threads may call. Keeps the model alive.
class Batch {
 public:
  static Result<std::unique_ptr<Batch>> create(std::shared_ptr<const Model> model,
                                               const BatchOptions& options = {});
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  /// Called on the caller's thread now and then with how many prompts are done; false: stop.
  using Progress = std::function<bool(size_t done)>;

  /// An answer to each prompt, in their order; prompt i samples with seed + i. Times are those of a
  /// request among others. An error names the prompt it is about; answers that were stopped by
  /// `progress` or `options.cancel` end as cancelled.
  Result<std::vector<Completion>> generate(std::span<const std::vector<int32_t>> prompts,
                                           const GenerateOptions& options = {},
                                           const Progress& progress = {});

  /// Scores of each continuation's tokens, with `top` alternatives each. `prefill`: the strategy
  /// that reads the contexts; empty: the model's. Stopped: an error that says so.
  Result<std::vector<std::vector<TokenScore>>> score(std::span<const ScoreRequest> requests,
                                                     std::string_view prefill = {}, int64_t top = 1,
                                                     const Progress& progress = {});

 private:
  struct Impl;
  explicit Batch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvcast

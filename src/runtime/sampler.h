#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "kvcast/result.h"
#include "kvcast/sampling.h"

namespace kvcast {

/// Chooses tokens for one sequence. Not thread-safe; reuses its scratch memory between calls.
class Sampler {
 public:
  /// `options` must have passed validate().
  explicit Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {}

  /// The next token for logits [vocab_size]. `previous_tokens`, prompt and answer so far, are read
  /// only by the repetition penalty; ids outside the vocabulary are ignored there. Of equal logits
  /// the lower id wins. NaN and -inf are never chosen; an error if nothing else is left.
  Result<int32_t> sample(std::span<const float> logits, std::span<const int32_t> previous_tokens);

  /// Whether `token`, which was sampled after `previous_tokens` from logits `drafted`, may stay now
  /// that the `exact` logits are known: none if so, else the token in its place. Greedy: it must be
  /// the exact choice. Else by the acceptance rule of speculative sampling (arXiv 2211.17192, 2.3),
  /// so that what is left is distributed as if drawn from the exact logits.
  Result<std::optional<int32_t>> verify(std::span<const float> exact,
                                        std::span<const float> drafted,
                                        std::span<const int32_t> previous_tokens, int32_t token);
  /// verify() does not need `drafted` then.
  [[nodiscard]] bool is_greedy() const { return options_.temperature == 0.0F; }

 private:
  struct Candidate {
    double weight = 0.0;  // logit, later exp((logit - largest) / temperature)
    int32_t token = 0;
  };

  /// Leaves in candidates_ every token that can be chosen, with its weight; greedy: its logit.
  Status weigh(std::span<const float> logits, std::span<const int32_t> previous_tokens);
  void gather_candidates(std::span<const float> logits, std::span<const int32_t> previous_tokens);
  void keep_most_probable();
  int32_t draw();
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }  // [0, 1)

  SamplingOptions options_;
  std::mt19937_64 random_;  // its output is fixed by the standard; std::*_distribution's is not
  std::vector<float> penalised_;
  std::vector<Candidate> candidates_, kept_;
  std::vector<double> drafted_;  // [vocab_size], in verify()
};

}  // namespace kvcast

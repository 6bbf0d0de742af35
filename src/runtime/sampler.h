#pragma once

#include <cstdint>
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

 private:
  struct Candidate {
    double weight = 0.0;  // logit, later exp((logit - largest) / temperature)
    int32_t token = 0;
  };

  void gather_candidates(std::span<const float> logits, std::span<const int32_t> previous_tokens);
  void keep_most_probable();
  int32_t draw();

  SamplingOptions options_;
  std::mt19937_64 random_;  // its output is fixed by the standard; std::*_distribution's is not
  std::vector<float> penalised_;
  std::vector<Candidate> candidates_, kept_;
};

}  // namespace kvcast

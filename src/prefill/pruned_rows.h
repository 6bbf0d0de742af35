// What the strategies that drop prompt tokens share (method §8). Kept tokens keep their positions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "prefill/strategy.h"

namespace kvcast {

/// How many of `rows` tokens a share `keep` of them is: rounded, at least one.
int64_t kept_count(int64_t rows, double keep);

/// The `count` rows with the highest scores and always the last row, ascending. Of equal scores the
/// earlier row wins.
std::vector<int64_t> highest_rows(std::span<const float> scores, int64_t count);

/// Tokens of a batch on their way through the base's layers, some of them dropped as they go.
class PrunedRows {
 public:
  /// Embeds the tokens at `positions` [sequences][rows], ascending, all of them pending, the
  /// sequence's last token among them.
  PrunedRows(const Transformer& base, std::span<Sequence* const> sequences,
             std::vector<std::vector<int64_t>> positions, Workspace& workspace);

  [[nodiscard]] int64_t rows(size_t sequence) const {
    return static_cast<int64_t>(positions_[sequence].size());
  }
  [[nodiscard]] int64_t total_rows() const;

  /// Goes on with rows kept[s] of sequence s only: ascending indices, the last row among them.
  void keep(const std::vector<std::vector<int64_t>>& kept);

  /// Runs layers. False: stopped.
  bool run(const RunLayersOptions& options);

  /// Runs all layers and finishes. False: stopped.
  bool read(const std::stop_token& stop, float* logits);

  /// Moves the caches past all tokens, dropped ones included. The last layer must have run with
  /// kLastRows; writes [sequences, vocab_size].
  void finish(float* logits);

 private:
  const Transformer& base_;
  std::span<Sequence* const> sequences_;
  std::vector<std::vector<int64_t>> positions_;  // [sequences][rows]
  Workspace& workspace_;
  float* hidden_;  // [total rows, model_dim]
};

/// Positions of everything pending for the base, [sequences][rows].
std::vector<std::vector<int64_t>> pending_positions(std::span<Sequence* const> sequences);

}  // namespace kvcast

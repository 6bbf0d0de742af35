// How many numbers a layer makes for each token, by what becomes of them; for plan.cpp.
#pragma once

#include "model/config.h"

namespace kvcast::train {

/// Of one token, in elements.
struct LayerNumbers {
  double kept = 0;       ///< until the backward pass
  double inputs = 0;     ///< all that stays of them if the layer is recomputed
  double transient = 0;  ///< gradients and results on the way through its backward pass
  double moved = 0;      ///< read or written by operations other than matrix products and attention
};

struct LayerWidths {
  double dim, query, kv, ffn;
  LayerWidths(const ModelConfig& config, int64_t i)
      : dim(static_cast<double>(config.model_dim)),
        query(static_cast<double>(config.query_width(i))),
        kv(static_cast<double>(config.kv_width(i))),
        ffn(static_cast<double>(config.layers[static_cast<size_t>(i)].ffn_dim)) {}

  [[nodiscard]] double backward_transient() const { return 4 * dim + 3 * query + 4 * kv + 5 * ffn; }
  [[nodiscard]] double moved_forward() const { return 8 * dim + 2 * (query + kv) + 3 * ffn; }
  [[nodiscard]] double moved_backward() const { return 8 * dim + 3 * (query + kv) + 5 * ffn; }

  /// A trained layer: each product keeps its input; sums, projections before and after their norms,
  /// attention's output, gate and up stay for the other operations. `hands_out`: its keys, normed
  /// without RoPE, are part of a cache.
  [[nodiscard]] LayerNumbers trained(bool hands_out) const {
    const double handed = hands_out ? kv : 0;
    return {.kept = 4 * dim + 3 * query + 3 * kv + handed + 3 * ffn,
            .inputs = 2 * dim + (hands_out ? query + 3 * kv : 0),
            .transient = backward_transient(),
            .moved = moved_forward() + moved_backward()};
  }
  /// A frozen layer over a predicted cache: its products keep nothing.
  [[nodiscard]] LayerNumbers replaced() const {
    return {.kept = 2 * dim + 3 * query + kv + 2 * ffn,
            .inputs = 2 * dim,
            .transient = backward_transient(),
            .moved = moved_forward() + moved_backward()};
  }
};

}  // namespace kvcast::train

// What a prefill costs in floating-point operations: the paper's approximation (method §6) and an
// exact count. A multiply and an add are two operations. Counts are doubles: exact up to 2^53,
// then rounded, never overflowing.
#pragma once

#include <cstdint>
#include <vector>

#include "kvcast/result.h"
#include "model/config.h"
#include "model/forecast_plan.h"

namespace kvcast {

/// The prefill strategies that can be counted from shapes alone. All need prompt_tokens >= 1.
struct PrefillCost {
  double auxiliary = 0.0;  ///< auxiliary layers
  double predictor = 0.0;
  double base = 0.0;     ///< layers of the answering model
  double lm_head = 0.0;  ///< once, for the last token; of both models where they mix
  /// What of all that is attention's two products, which run in the cache's type, not the weights'.
  double attention = 0.0;

  [[nodiscard]] double total() const { return auxiliary + predictor + base + lm_head; }
  PrefillCost& operator+=(const PrefillCost& other) {
    auxiliary += other.auxiliary;
    predictor += other.predictor;
    base += other.base;
    lm_head += other.lm_head;
    attention += other.attention;
    return *this;
  }
};

/// Every matrix product of one model reading the prompt itself, attention's QK^T and PV included
/// (causal: a token attends to itself and what is before it). In the last layer only K/V for all
/// tokens and the rest for the last. `auxiliary` alone costs exact_cost(auxiliary).
PrefillCost exact_cost(const ModelConfig& model, int64_t prompt_tokens);

/// A decode step of one sequence: one token behind `cached` ones.
PrefillCost step_cost(const ModelConfig& model, int64_t cached);

/// KV Prediction (method §3): the auxiliary and the predictor read all but the last `tail` >= 1
/// tokens, the base runs the tail over the forecast. The auxiliary stops after the K/V of the last
/// layer that the plan reads; the plan's exact layers count as the auxiliary's, its sink tokens as
/// the base's (where they run with the tail, their forecast, which is overwritten, is left out).
/// With prompt_tokens <= tail nothing is predicted. `mixes`: the auxiliary reads the
/// whole prompt with all of its layers and gives logits of its own.
PrefillCost kv_prediction_cost(const ModelConfig& base, const ModelConfig& auxiliary,
                               const ForecastPlan& plan, int64_t prompt_tokens, int64_t tail = 1,
                               bool mixes = false);

/// A model that takes rows_per_layer[i] tokens through layer i (token pruning); in the last layer
/// K/V for all of them and the rest for the last.
PrefillCost pruned_cost(const ModelConfig& model, const std::vector<int64_t>& rows_per_layer);

/// The first `layers` layers on all tokens, to learn the attention that the last one pays: what
/// static pruning adds to the run on what it keeps.
PrefillCost attention_scoring_cost(const ModelConfig& model, int64_t layers, int64_t prompt_tokens);

/// Weights and biases of the predictor for this pair.
int64_t predictor_parameter_count(const ModelConfig& base, const ModelConfig& auxiliary,
                                  const ForecastPlan& plan);

/// The paper's approximation, t_N(n) = 2 P n: the base reads everything itself.
double approximate_exact_flops(const ModelConfig& base, int64_t prompt_tokens);

/// The same for the first token of KV Prediction, t_A(N) + t_P(N) + t_B(tail).
double approximate_kv_prediction_flops(const ModelConfig& base, const ModelConfig& auxiliary,
                                       const ForecastPlan& plan, int64_t prompt_tokens,
                                       int64_t tail = 1);

/// The reduction that the paper's tables print, P_B / P_A: what is left of the approximation for
/// long prompts with the predictor neglected.
double paper_reduction(const ModelConfig& base, const ModelConfig& auxiliary);

}  // namespace kvcast

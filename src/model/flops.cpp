#include "model/flops.h"

#include <algorithm>

#include "model/layout.h"

namespace kvcast {
namespace {

/// What one layer computes in a run.
enum class LayerWork { kAllRows, kKeysValuesAndLastRow, kKeysValuesOnly };

/// x [rows, columns] · Wᵀ.
double matmul_flops(double rows, int64_t columns, int64_t out) {
  return 2.0 * rows * static_cast<double>(columns) * static_cast<double>(out);
}

struct LayerCost {
  double products = 0.0;   ///< with weights
  double attention = 0.0;  ///< QKᵀ and PV

  [[nodiscard]] double total() const { return products + attention; }
  LayerCost& operator+=(const LayerCost& other) {
    products += other.products;
    attention += other.attention;
    return *this;
  }
};

/// `rows` new tokens behind `cached` earlier ones. A row at position p attends to p + 1 keys: QKᵀ
/// and PV cost 2 * query_width each per key.
LayerCost layer_cost(const ModelConfig& model, int64_t layer, int64_t cached, int64_t rows,
                     LayerWork work) {
  const auto n = static_cast<double>(rows);
  const bool all = work == LayerWork::kAllRows;
  double keys_values = 0.0, others = 0.0;  // products of all rows, of those that go on
  for (const Weight& weight : layer_weights(model, layer)) {
    if (!weight.is_matrix()) continue;
    const bool is_key_value = weight.role == Role::kKey || weight.role == Role::kValue;
    (is_key_value ? keys_values : others) +=
        matmul_flops(is_key_value || all ? n : 1.0, weight.columns, weight.rows);
  }
  if (work == LayerWork::kKeysValuesOnly) return {keys_values, 0.0};

  const double last_seen = static_cast<double>(cached) + n;
  const double keys_seen = all ? n * static_cast<double>(cached) + n * (n + 1.0) / 2.0 : last_seen;
  const double attention = 4.0 * static_cast<double>(model.query_width(layer)) * keys_seen;
  return {keys_values + others, attention};
}

/// Layers [0, count) of which the last does only `last_work`.
LayerCost layers_cost(const ModelConfig& model, int64_t count, int64_t cached, int64_t rows,
                      LayerWork last_work) {
  LayerCost cost;
  for (int64_t i = 0; i < count; ++i) {
    const LayerWork work = i + 1 == count ? last_work : LayerWork::kAllRows;
    cost += layer_cost(model, i, cached, rows, work);
  }
  return cost;
}

/// Counts the layers in `cost` as one of its parts.
void add(PrefillCost& cost, double PrefillCost::*part, const LayerCost& layers) {
  cost.*part += layers.total();
  cost.attention += layers.attention;
}

/// The answering model runs `rows` tokens behind `cached` ones and gives the last one's logits.
PrefillCost answer_cost(const ModelConfig& model, int64_t cached, int64_t rows) {
  PrefillCost cost;
  add(cost, &PrefillCost::base,
      layers_cost(model, model.n_layers(), cached, rows, LayerWork::kKeysValuesAndLastRow));
  cost.lm_head = matmul_flops(1.0, model.model_dim, model.vocab_size);
  return cost;
}

}  // namespace

PrefillCost exact_cost(const ModelConfig& model, int64_t prompt_tokens) {
  return answer_cost(model, 0, prompt_tokens);
}

PrefillCost step_cost(const ModelConfig& model, int64_t cached) {
  return answer_cost(model, cached, 1);
}

PrefillCost pruned_cost(const ModelConfig& model, const std::vector<int64_t>& rows_per_layer) {
  PrefillCost cost;
  for (int64_t i = 0; i < model.n_layers(); ++i) {
    const bool last = i + 1 == model.n_layers();
    add(cost, &PrefillCost::base,
        layer_cost(model, i, 0, rows_per_layer[static_cast<size_t>(i)],
                   last ? LayerWork::kKeysValuesAndLastRow : LayerWork::kAllRows));
  }
  cost.lm_head = matmul_flops(1.0, model.model_dim, model.vocab_size);
  return cost;
}

PrefillCost attention_scoring_cost(const ModelConfig& model, int64_t layers,
                                   int64_t prompt_tokens) {
  PrefillCost cost;
  add(cost, &PrefillCost::base,
      layers_cost(model, layers, 0, prompt_tokens, LayerWork::kKeysValuesAndLastRow));
  return cost;
}

PrefillCost kv_prediction_cost(const ModelConfig& base, const ModelConfig& auxiliary,
                               const ForecastPlan& plan, int64_t prompt_tokens, int64_t tail,
                               bool mixes) {
  const int64_t predicted = std::max<int64_t>(prompt_tokens - tail, 0);
  const int64_t sinks = std::min(plan.sink_tokens, predicted), rows = predicted - sinks;
  constexpr LayerWork kLast = LayerWork::kKeysValuesOnly;
  PrefillCost cost = answer_cost(base, predicted, prompt_tokens - predicted);
  add(cost, &PrefillCost::base,
      layers_cost(base, sinks > 0 ? base.n_layers() : 0, 0, sinks, kLast));
  if (mixes && predicted > 0) {
    const PrefillCost whole = exact_cost(auxiliary, prompt_tokens);
    cost.auxiliary += whole.base;
    cost.attention += whole.attention;
    cost.lm_head += whole.lm_head;
  } else {
    add(cost, &PrefillCost::auxiliary,
        layers_cost(auxiliary, plan.auxiliary_layers(), 0, predicted, kLast));
  }
  add(cost, &PrefillCost::auxiliary, layers_cost(base, plan.exact_layers, sinks, rows, kLast));
  for (int64_t i = plan.exact_layers; i < base.n_layers(); ++i) {
    cost.predictor +=
        2.0 * matmul_flops(static_cast<double>(rows), input_width(plan.inputs[i], base, auxiliary),
                           base.kv_width(i));
  }
  return cost;
}

int64_t predictor_parameter_count(const ModelConfig& base, const ModelConfig& auxiliary,
                                  const ForecastPlan& plan) {
  int64_t count = 0;
  for (int64_t i = plan.exact_layers; i < base.n_layers(); ++i) {
    count += 2 * base.kv_width(i) * (input_width(plan.inputs[i], base, auxiliary) + 1);
  }
  return count;
}

double approximate_exact_flops(const ModelConfig& base, int64_t prompt_tokens) {
  return 2.0 * static_cast<double>(base.parameter_count()) * static_cast<double>(prompt_tokens);
}

double approximate_kv_prediction_flops(const ModelConfig& base, const ModelConfig& auxiliary,
                                       const ForecastPlan& plan, int64_t prompt_tokens,
                                       int64_t tail) {
  int64_t read = predictor_parameter_count(base, auxiliary, plan);
  if (auxiliary.n_layers() > 0) read += auxiliary.parameter_count();
  for (int64_t i = 0; i < plan.exact_layers; ++i) {
    for (const Weight& weight : layer_weights(base, i)) {
      if (weight.is_matrix()) read += weight.rows * weight.columns;
    }
  }
  return 2.0 * static_cast<double>(read) * static_cast<double>(prompt_tokens) +
         approximate_exact_flops(base, std::min(tail, prompt_tokens));
}

double paper_reduction(const ModelConfig& base, const ModelConfig& auxiliary) {
  return static_cast<double>(base.parameter_count()) /
         static_cast<double>(auxiliary.parameter_count());
}

}  // namespace kvcast

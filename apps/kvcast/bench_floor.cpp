// What the machine could do at best: operations and bytes of a first token and of a decode step.
#include <array>
#include <set>

#include "bench.h"
#include "model/flops.h"

namespace kvcast {
namespace {

/// The matrices of a layer.
std::array<const PackedMatrix*, 6> matrices_of(const LayerWeights& layer) {
  return {&layer.q_proj,   &layer.k_proj, &layer.v_proj,
          &layer.out_proj, &layer.proj_1, &layer.proj_2};
}

bool answers_by_auxiliary(const PrefillStrategy& strategy) {
  return strategy.cache_use().answerer == Sequence::Answerer::kAuxiliary;
}

/// A model's weights, without embeddings of which a step looks up a row.
double bytes_of_step(const Transformer& model) {
  auto bytes = static_cast<double>(model.weights().bytes());
  if (model.weights().lm_head.n() > 0) {
    bytes -= static_cast<double>(model.weights().embeddings.bytes());
  }
  return bytes;
}

/// Of everything that a first token cannot do without.
double weight_bytes_of_prefill(const BenchCase& bench, const PrefillStrategy& strategy) {
  const Models& models = *bench.models;
  double bytes = weight_bytes_per_step(bench, strategy);
  if (!strategy.cache_use().auxiliary_reads || answers_by_auxiliary(strategy)) return bytes;
  std::set<const std::byte*> counted;  // an auxiliary may be made of the base's own layers
  for (const LayerWeights& layer : models.base->weights().layers) {
    for (const PackedMatrix* matrix : matrices_of(layer)) counted.insert(matrix->data().data());
  }
  // One that mixes is in a step's bytes.
  const bool reads = models.auxiliary && strategy.mix() == 0;
  for (int64_t i = 0; reads && i < models.plan.auxiliary_layers(); ++i) {
    for (const PackedMatrix* matrix :
         matrices_of(models.auxiliary->weights().layers[static_cast<size_t>(i)])) {
      const bool is_new = counted.insert(matrix->data().data()).second;
      if (is_new) bytes += static_cast<double>(matrix->bytes());
    }
  }
  return bytes + (models.predictor ? static_cast<double>(models.predictor->bytes()) : 0);
}

Floor floor_of(const PrefillCost& cost, double times, double bytes, const MachinePeak& peak) {
  const double seconds =
      (cost.total() - cost.attention) / peak.ops_per_s + cost.attention / peak.attention_ops_per_s;
  return {.arithmetic_ms = 1e3 * times * seconds, .bytes_ms = 1e3 * bytes / peak.read_bytes_per_s};
}

}  // namespace

double weight_bytes_per_step(const BenchCase& bench, const PrefillStrategy& strategy) {
  if (answers_by_auxiliary(strategy)) return bytes_of_step(*bench.models->auxiliary);
  const double bytes = bytes_of_step(*bench.models->base);
  return strategy.mix() == 0 ? bytes : bytes + bytes_of_step(*bench.models->auxiliary);
}

Floor prefill_floor(const BenchCase& bench, const PrefillStrategy& strategy,
                    const MachinePeak& peak) {
  return floor_of(strategy.cost(bench.models->shapes(), bench.prompt_tokens),
                  static_cast<double>(bench.batch), weight_bytes_of_prefill(bench, strategy), peak);
}

Floor decode_floor(const BenchCase& bench, const PrefillStrategy& strategy, double cache_bytes,
                   const MachinePeak& peak) {
  const Transformer& model =
      answers_by_auxiliary(strategy) ? *bench.models->auxiliary : *bench.models->base;
  PrefillCost cost = step_cost(model.config(), bench.prompt_tokens);
  if (strategy.mix() > 0) {
    cost += step_cost(bench.models->auxiliary->config(), bench.prompt_tokens);
  }
  return floor_of(cost, static_cast<double>(bench.batch),
                  weight_bytes_per_step(bench, strategy) + cache_bytes, peak);
}

}  // namespace kvcast

#include "train/kvp_loss.h"

namespace kvcast::train {
namespace {

/// All layers' tensors as [B * T, total width], so that one pass of operations serves every layer.
Tensor concatenated(const Cache& cache, Tensor LayerCache::*member) {
  std::vector<Tensor> parts;
  for (const auto& layer : cache) parts.push_back((layer.*member).flatten(2).flatten(0, 1));
  return at::cat(parts, 1).to(at::kFloat);
}

/// mean |predicted - target| of every layer over the rows that count, [layers].
Tensor consistency(const Cache& predicted, const Cache& target, Tensor LayerCache::*member,
                   const Tensor& row_weights) {
  const Tensor difference = (concatenated(predicted, member) - concatenated(target, member)).abs();
  const Tensor columns = at::matmul(row_weights, difference);  // [total width], means over rows
  std::vector<int64_t> widths;
  for (const auto& layer : predicted) {
    widths.push_back((layer.*member).size(2) * (layer.*member).size(3));
  }
  std::vector<Tensor> means;
  for (const Tensor& layer : columns.split_with_sizes(widths)) means.push_back(layer.mean());
  return at::stack(means);
}

Tensor rows_of(const Tensor& hidden) { return hidden.flatten(0, 1); }

}  // namespace

KvpLosses kvp_loss(const Model& base, const Model& auxiliary, const Predictor& predictor,
                   const Tensor& input_ids, const Tensor& targets, const KvpLossOptions& options,
                   KvpTrace* trace) {
  // A reads all T tokens (causal) -> a, KV_A.
  Cache auxiliary_cache;
  const Tensor auxiliary_hidden = forward(auxiliary, input_ids, &auxiliary_cache);

  // P -> predicted cache for all T positions, B's k_norm applied.
  const Cache predicted = predict_cache(predictor, base, auxiliary_cache);

  // B on all T tokens with keys and values replaced by the predicted ones -> b.
  const Tensor base_hidden = forward_with_replaced_cache(base, input_ids, predicted);

  // B once more, exactly, without gradients -> target cache.
  Cache target;
  {
    const at::NoGradGuard no_grad;
    target = forward_cache(base, input_ids);
  }

  // L = lambda_B CE(b) + lambda_A CE(a) + lambda_C sum_layers [mean |K̂ - K| + mean |V̂ - V|],
  // ignored positions left out of all terms.
  const Tensor flat_targets = targets.flatten();
  const Tensor counted = flat_targets.ne(options.cross_entropy.ignore_index).to(at::kFloat);
  const Tensor row_weights = counted / counted.sum().clamp_min(1.0);
  KvpLosses losses;
  losses.base =
      linear_cross_entropy(rows_of(base_hidden), base.lm_head, flat_targets, options.cross_entropy);
  losses.auxiliary = linear_cross_entropy(rows_of(auxiliary_hidden), auxiliary.lm_head,
                                          flat_targets, options.cross_entropy);
  losses.key_consistency = consistency(predicted, target, &LayerCache::key, row_weights);
  losses.value_consistency = consistency(predicted, target, &LayerCache::value, row_weights);
  losses.total =
      options.lambda_base * losses.base.total + options.lambda_auxiliary * losses.auxiliary.total +
      options.lambda_consistency * (losses.key_consistency.sum() + losses.value_consistency.sum());
  if (trace != nullptr) *trace = {auxiliary_hidden, base_hidden, predicted, target};
  return losses;
}

}  // namespace kvcast::train

#include "train/kvp_loss.h"

#include <algorithm>

#include "train/absolute_difference.h"
#include "train/distillation.h"

namespace kvcast::train {
namespace {

/// mean |predicted - target| of every layer over the rows that count, [layers].
Tensor l1_consistency(const Cache& predicted, const Cache& target, Tensor LayerCache::*member,
                      const Tensor& row_weights) {
  std::vector<Tensor> means;
  for (size_t i = 0; i < predicted.size(); ++i) {
    means.push_back(mean_absolute_difference(predicted[i].*member, target[i].*member, row_weights));
  }
  return at::stack(means);
}

/// The base's exact pass, without gradients.
struct ExactPass {
  Cache cache;
  std::vector<AttentionTrace> attention;
  Tensor hidden;  // [B, T, model_dim]
};

ExactPass run_exactly(const Model& base, const Tensor& input_ids, const KvpLossOptions& options) {
  const at::NoGradGuard no_grad;
  ExactPass exact;
  const bool attention = options.consistency == Consistency::kAttentionOutput;
  if (options.lambda_kl > 0 || attention) {
    exact.hidden = forward(base, input_ids, &exact.cache, attention ? &exact.attention : nullptr);
  } else if (options.consistency == Consistency::kL1) {
    exact.cache = forward_cache(base, input_ids);
  }
  return exact;
}

/// |Ô - O|² / |O|² of every layer over the rows that count, [layers]: the exact pass's queries of
/// positions from `split` on meet predicted keys and values of the positions before, and the exact
/// ones after. In the paper's pass (split 0) all are predicted.
Tensor attention_consistency(const Model& base, const Cache& predicted, const ExactPass& exact,
                             int64_t split, const Tensor& row_weights) {
  std::vector<Tensor> layers;
  for (size_t i = 0; i < predicted.size(); ++i) {
    const AttentionTrace& trace = exact.attention[i];
    const int64_t rest = trace.query.size(1) - split;
    LayerCache cache = predicted[i];
    if (split > 0) {
      const auto joined = [&](Tensor LayerCache::*member) {
        const Tensor& own = exact.cache[i].*member;
        return at::cat({(predicted[i].*member).narrow(1, 0, split), own.narrow(1, split, rest)}, 1);
      };
      cache.key = joined(&LayerCache::key);
      cache.value = joined(&LayerCache::value);
    }
    const Tensor output = attention_output(base, i, trace.query.narrow(1, split, rest), cache);
    const Tensor target = trace.output.narrow(1, split, rest).to(at::kFloat);
    const auto energy = [&](const Tensor& x) {
      return at::dot(x.square().sum(-1).flatten(), row_weights);
    };
    layers.push_back(energy(output.to(at::kFloat) - target) / energy(target).clamp_min(1e-12));
  }
  return at::stack(layers);
}

/// 1 / n for each of the n targets that count, 0 for the others. [rows]
Tensor weights_of(const Tensor& targets, int64_t ignore_index) {
  const Tensor counted = targets.flatten().ne(ignore_index).to(at::kFloat);
  return counted / counted.sum().clamp_min(1.0);
}

Tensor rows_of(const Tensor& hidden) { return hidden.flatten(0, 1); }

/// lambda_B CE(b) + lambda_KL KL(exact || b) over the positions that the base ran.
Tensor base_loss(const Model& base, const Tensor& hidden, const ExactPass& exact,
                 const Tensor& targets, const KvpLossOptions& options, KvpLosses& losses) {
  const Tensor student = rows_of(hidden), flat_targets = targets.flatten();
  if (options.lambda_kl <= 0) {
    losses.base = linear_cross_entropy(student, base.lm_head, flat_targets, options.cross_entropy);
    return options.lambda_base * losses.base.total;
  }
  const int64_t ran = hidden.size(1);
  const Tensor teacher = rows_of(exact.hidden.narrow(1, exact.hidden.size(1) - ran, ran));
  const Distillation distilled =
      linear_distillation(student, teacher, base.lm_head, flat_targets,
                          {options.lambda_base, options.lambda_kl, options.cross_entropy});
  losses.base = distilled.cross_entropy;
  losses.kl = distilled.kl;
  return distilled.total;
}

/// lambda_C times what holds the predicted cache against the exact one: over all positions for L1,
/// over those that the base ran for attention outputs.
Tensor consistency_loss(const Model& base, const Cache& predicted, const ExactPass& exact,
                        const Tensor& targets, const Tensor& base_targets,
                        const KvpLossOptions& options, KvpLosses& losses) {
  const int64_t ignored = options.cross_entropy.ignore_index;
  switch (options.consistency) {
    case Consistency::kNone:
      return {};
    case Consistency::kL1: {
      const Tensor weights = weights_of(targets, ignored);
      losses.key_consistency = l1_consistency(predicted, exact.cache, &LayerCache::key, weights);
      losses.value_consistency =
          l1_consistency(predicted, exact.cache, &LayerCache::value, weights);
      return options.lambda_consistency *
             (losses.key_consistency.sum() + losses.value_consistency.sum());
    }
    case Consistency::kAttentionOutput: {
      const int64_t split = targets.size(1) - base_targets.size(1);
      losses.attention_consistency =
          attention_consistency(base, predicted, exact, split, weights_of(base_targets, ignored));
      return options.lambda_consistency * losses.attention_consistency.sum();
    }
  }
  return {};
}

}  // namespace

KvpLosses kvp_loss(const Model& base, const Model& auxiliary, const Predictor& predictor,
                   const Tensor& input_ids, const Tensor& targets, const KvpLossOptions& options,
                   const KvpPass& pass, KvpTrace* trace) {
  const int64_t split = pass.predicted_tokens, rest = input_ids.size(1) - split;
  // A reads all T tokens (causal) -> a, KV_A; or those before the split, if nothing needs the rest.
  Cache auxiliary_cache;
  Tensor auxiliary_hidden;
  if (options.auxiliary_kv_only_last) {
    const bool prefix_alone = split > 0 && options.consistency != Consistency::kL1;
    auxiliary_cache =
        forward_cache(auxiliary, prefix_alone ? input_ids.narrow(1, 0, split) : input_ids);
  } else {
    auxiliary_hidden = forward(auxiliary, input_ids, &auxiliary_cache);
  }

  // P -> predicted cache for all positions that A read, B's k_norm applied.
  const Cache predicted = predict_cache(predictor, base, auxiliary_cache);

  // B on all T tokens with keys and values replaced by the predicted ones, or on the rest after the
  // split with its own over the predicted prefix -> b.
  const Tensor base_hidden = split == 0
                                 ? forward_with_replaced_cache(base, input_ids, predicted)
                                 : forward_after_prefix(base, input_ids.narrow(1, split, rest),
                                                        prefix_of(predicted, split));

  // B once more, exactly, without gradients -> target cache and distribution.
  const ExactPass exact = run_exactly(base, input_ids, options);

  // L = lambda_B CE(b) + lambda_KL KL(exact || b) + lambda_A CE(a)
  //   + lambda_C sum_layers [mean |K̂ - K| + mean |V̂ - V|], ignored positions left out of all terms.
  const int64_t ignored = options.cross_entropy.ignore_index;
  Tensor base_targets = targets.narrow(1, split, rest);
  if (split > 0 && pass.tail_tokens > 1) {
    base_targets = base_targets.clone();
    base_targets.narrow(1, 0, std::min(pass.tail_tokens - 1, rest - 1)).fill_(ignored);
  }
  KvpLosses losses;
  losses.total = base_loss(base, base_hidden, exact, base_targets, options, losses);
  if (auxiliary_hidden.defined()) {
    losses.auxiliary = linear_cross_entropy(rows_of(auxiliary_hidden), auxiliary.lm_head,
                                            targets.flatten(), options.cross_entropy);
    losses.total = losses.total + options.lambda_auxiliary * losses.auxiliary.total;
  }
  const Tensor consistency =
      consistency_loss(base, predicted, exact, targets, base_targets, options, losses);
  if (consistency.defined()) losses.total = losses.total + consistency;
  if (trace != nullptr) *trace = {auxiliary_hidden, base_hidden, predicted, exact.cache};
  return losses;
}

}  // namespace kvcast::train

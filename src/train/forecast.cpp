#include "train/forecast.h"

#include <algorithm>
#include <tuple>

#include "train/distillation.h"

namespace kvcast::train {
namespace {

/// x [B, T, model_dim] -> [B, T, base heads, base head_dim]
Tensor transform(const LinearTransform& t, const Tensor& x, int64_t head_dim) {
  return at::linear(x, t.weight, t.bias.to(x.scalar_type()))
      .view({x.size(0), x.size(1), -1, head_dim});
}

/// `exact` in the first `sinks` positions, `forecast` in the others; [B, T, ...].
Tensor with_sinks(const Tensor& exact, const Tensor& forecast, int64_t sinks) {
  const int64_t tokens = forecast.size(1), own = std::min(sinks, tokens);
  if (own == 0) return forecast;
  return at::cat({exact.narrow(1, 0, own), forecast.narrow(1, own, tokens - own)}, 1);
}

/// The targets that count: those of tokens that the base runs after the tail.
Tensor scored_targets(const Tensor& targets, const KvpPass& pass, int64_t ignored) {
  const int64_t split = pass.predicted_tokens, rest = targets.size(1) - split;
  Tensor scored = targets.narrow(1, split, rest);
  if (split > 0 && pass.tail_tokens > 1) {
    scored = scored.clone();
    scored.narrow(1, 0, std::min(pass.tail_tokens - 1, rest - 1)).fill_(ignored);
  }
  return scored;
}

/// [B, T] f32: what each position counts.
Tensor position_weights(const SequenceSplits& splits, int64_t tokens) {
  const Tensor positions = at::arange(tokens, splits.own_from.options());
  const Tensor before = positions.unsqueeze(0).lt(splits.own_from.unsqueeze(1));
  return before.to(at::kFloat).mul(splits.prefix_weight - 1.0).add(1.0);
}

}  // namespace

Tensors forecast_sources(const Model& reader, const ExactRun& exact, int64_t tokens) {
  const Tensor rows = reader.token_embeddings.defined()
                          ? embed(reader, exact.tokens.narrow(1, 0, tokens))
                          : exact.start.narrow(1, 0, tokens).contiguous();
  Tensors sources;
  sources.push_back(run_layers(
      reader, rows, {.last = static_cast<int64_t>(reader.layers.size()), .entering = &sources}));
  // What left the last layer was pushed behind the rows that entered each.
  const Tensor no_weight = at::ones({rows.size(2)}, rows.options().requires_grad(false));
  for (Tensor& source : sources) source = rms_norm(source, no_weight, reader.config.norm_eps);
  return sources;
}

ExactRun run_exact(const Model& base, const ForecastShape& shape, const Tensor& tokens) {
  const at::NoGradGuard no_grad;
  ExactRun exact;
  exact.tokens = tokens;
  exact.start = run_layers(base, embed(base, tokens), {.last = shape.start()});
  exact.resumed =
      run_layers(base, exact.start, {.first = shape.start(), .last = shape.exact_layers});
  exact.hidden = final_norm(base, run_layers(base, exact.resumed,
                                             {.first = shape.exact_layers,
                                              .last = base.config.n_layers(),
                                              .cache = &exact.cache}));
  return exact;
}

Tensor map_input(const ForecastShape& shape, const Tensors& sources, int64_t source) {
  Tensors streams;
  for (const int64_t each : shape.beside) streams.push_back(sources[static_cast<size_t>(each)]);
  streams.push_back(sources[static_cast<size_t>(source)]);
  return streams.size() == 1 ? streams.front() : at::cat(streams, -1);
}

Cache forecast_cache(const Model& base, const ForecastShape& shape, const Predictor& maps,
                     const ExactRun& exact, const Tensors& sources) {
  const int64_t head_dim = base.config.head_dim;
  Cache forecast;
  Tensors inputs(sources.size());  // made once for all maps that read the same
  for (size_t n = 0; n < maps.layer_map.size(); ++n) {
    Tensor& source = inputs[static_cast<size_t>(maps.layer_map[n])];
    if (!source.defined()) source = map_input(shape, sources, maps.layer_map[n]);
    const auto layer = static_cast<size_t>(shape.exact_layers) + n;
    LayerCache rows;
    rows.key_prenorm = transform(maps.key_transforms[n], source, head_dim);
    rows.key =
        head_norm_rope(rows.key_prenorm, base.layers[layer].k_norm, base.config.norm_eps, nullptr);
    rows.value = transform(maps.value_transforms[n], source, head_dim);
    rows.key = with_sinks(exact.cache[n].key, rows.key, shape.sink_tokens);
    rows.value = with_sinks(exact.cache[n].value, rows.value, shape.sink_tokens);
    forecast.push_back(std::move(rows));
  }
  return forecast;
}

Tensor run_on_forecast(const Model& base, const ForecastShape& shape, const ExactRun& exact,
                       const Cache& forecast, const KvpPass& pass) {
  const int64_t tokens = exact.start.size(1), split = pass.predicted_tokens;
  if (split == 0) return run_with_replaced_cache(base, exact.resumed, shape.exact_layers, forecast);
  return run_after_prefix(base, exact.resumed.narrow(1, split, tokens - split), shape.exact_layers,
                          forecast);
}

std::pair<Tensor, Tensor> beside_companion(const Tensor& student, const Tensor& teacher,
                                           const Tensor& hidden, double share) {
  return {at::cat({student.mul(1.0 - share), hidden.mul(share)}, -1),
          at::cat({teacher, at::zeros_like(hidden)}, -1)};
}

ForecastLosses forecast_loss(const Model& base, const ForecastShape& shape,
                             const Forecaster& forecaster, const Tensor& input_ids,
                             const Tensor& targets, const KvpLossOptions& options,
                             const KvpPass& pass, const SequenceSplits& splits,
                             const Companion& companion) {
  const ExactRun exact = run_exact(base, shape, input_ids);
  const bool reads_all = splits.own_from.defined() || pass.predicted_tokens == 0;
  const Tensors sources = forecast_sources(forecaster.reader, exact,
                                           reads_all ? input_ids.size(1) : pass.predicted_tokens);
  const Cache forecast = forecast_cache(base, shape, forecaster.maps, exact, sources);
  DistillationOptions distillation{options.lambda_base, options.lambda_kl, options.cross_entropy};
  Tensor student, teacher, scored;
  if (splits.own_from.defined()) {
    student = run_with_prefixes(base, exact.resumed, shape.exact_layers, forecast, splits.own_from);
    teacher = exact.hidden;
    scored = targets;
    distillation.row_weights = position_weights(splits, input_ids.size(1)).flatten();
  } else {
    student = run_on_forecast(base, shape, exact, forecast, pass);
    teacher = exact.hidden.narrow(1, pass.predicted_tokens, student.size(1));
    scored = scored_targets(targets, pass, options.cross_entropy.ignore_index);
  }
  if (companion.hidden.defined()) {
    const Tensor hidden =
        companion.hidden.narrow(1, input_ids.size(1) - student.size(1), student.size(1));
    std::tie(student, teacher) = beside_companion(student, teacher, hidden, companion.share);
  }
  const Distillation distilled =
      linear_distillation(student.flatten(0, 1), teacher.flatten(0, 1),
                          companion.hidden.defined() ? companion.lm_head : base.lm_head,
                          scored.flatten(), distillation);
  ForecastLosses losses{distilled.total, distilled.cross_entropy, distilled.kl, {}};
  if (options.lambda_auxiliary > 0.0 && forecaster.reader.lm_head.defined()) {
    // The last source is what leaves its last layer, divided by its RMS already.
    const Tensor hidden = sources.back() * forecaster.reader.norm;
    losses.auxiliary =
        linear_cross_entropy(hidden.flatten(0, 1), forecaster.reader.lm_head,
                             targets.narrow(1, 0, hidden.size(1)).flatten(), options.cross_entropy);
    losses.total = losses.total + options.lambda_auxiliary * losses.auxiliary.total;
  }
  return losses;
}

}  // namespace kvcast::train

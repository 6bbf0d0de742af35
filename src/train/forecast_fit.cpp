#include "train/forecast_fit.h"

#include <algorithm>

#include "train/batch_loader.h"
#include "train/data/error.h"
#include "train/ridge.h"

namespace kvcast::train {
namespace {

constexpr int64_t kWindowsAtOnce = 8;

std::vector<int64_t> forecast_widths(const ModelConfig& base, const ForecastShape& shape) {
  std::vector<int64_t> widths;
  for (int64_t i = shape.exact_layers; i < base.n_layers(); ++i) widths.push_back(base.kv_width(i));
  return widths;
}

}  // namespace

ForecastFit fit_forecast(const Model& base, const Model& reader, const ForecastShape& shape,
                         const RidgeFitRecipe& recipe, const WindowSampler& sampler,
                         const at::Device& device) {
  const at::NoGradGuard no_grad;
  const int64_t tokens = sampler.sequence_tokens();
  const auto streams = static_cast<int64_t>(reader.layers.size()) + 1;
  // A map's own stream comes after those beside it.
  const int64_t first_source = shape.beside.empty() ? 0 : shape.beside.back() + 1;
  const std::vector<int64_t> inputs(static_cast<size_t>(streams - first_source),
                                    map_width(reader.config, shape));
  int64_t next_window = 0;
  const auto sums_over = [&](int64_t wanted_tokens) {
    RidgeSums sums(forecast_widths(base.config, shape), inputs, device);
    while (sums.rows() < wanted_tokens) {
      const int64_t missing = (wanted_tokens - sums.rows() + tokens - 1) / tokens;
      const int64_t n = std::min(kWindowsAtOnce, missing);
      const ExactRun exact = run_exact(
          base, shape, read_samples(sampler, next_window, n).narrow(1, 0, tokens).to(device));
      const int64_t first = std::min(shape.sink_tokens, tokens - 1), rest = tokens - first;
      Cache targets, sources;
      for (const LayerCache& layer : exact.cache) {
        targets.push_back(
            {layer.key_prenorm.narrow(1, first, rest), {}, layer.value.narrow(1, first, rest)});
      }
      const Tensors read = forecast_sources(reader, exact, tokens);
      for (int64_t source = first_source; source < streams; ++source) {
        const Tensor rows = map_input(shape, read, source).narrow(1, first, rest).unsqueeze(2);
        sources.push_back({rows, {}, rows});  // keys and values alike are read from it
      }
      sums.add(targets, sources);
      next_window += n;
    }
    return sums;
  };
  const RidgeSums training = sums_over(recipe.tokens), held_out = sums_over(recipe.held_out_tokens);
  const RidgeFit regression(training, recipe.regularisation);
  const Tensor errors = regression.errors(held_out);
  ForecastFit fit;
  fit.sources = best_layer_map(errors, /*monotone=*/false);
  fit.maps = regression.predictor(fit.sources);
  for (size_t i = 0; i < fit.sources.size(); ++i) {
    fit.held_out_error += errors[static_cast<int64_t>(i)][fit.sources[i]].item<double>() /
                          static_cast<double>(fit.sources.size());
    fit.sources[i] += first_source;
  }
  for (const auto& [name, value] : fit.maps) {
    if (!value.isfinite().all().item<bool>()) {
      throw TrainError("ridge: " + name + " is not finite; use a larger ridge.regularisation");
    }
  }
  return fit;
}

int64_t map_width(const ModelConfig& reader, const ForecastShape& shape) {
  return reader.model_dim * (std::ssize(shape.beside) + 1);
}

std::vector<ParameterSpec> forecast_map_specs(const ModelConfig& base, const ForecastShape& shape,
                                              int64_t source_width) {
  std::vector<ParameterSpec> specs;
  const std::vector<int64_t> widths = forecast_widths(base, shape);
  for (const char* kind : {"key_transforms.", "value_transforms."}) {
    for (size_t n = 0; n < widths.size(); ++n) {
      const std::string name = kind + std::to_string(n);
      specs.push_back({name + ".weight", {widths[n], source_width}});
      specs.push_back({name + ".bias", {widths[n]}, Init::kZeros});
    }
  }
  return specs;
}

}  // namespace kvcast::train

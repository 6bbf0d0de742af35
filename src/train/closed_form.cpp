#include "train/closed_form.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "train/batch_loader.h"
#include "train/data/error.h"
#include "train/preflight.h"
#include "train/ridge.h"

namespace kvcast::train {
namespace {

constexpr int64_t kWindowsAtOnce = 8;

Model bind(const LoadedModel& model, int64_t tokens, const at::Device& device) {
  return bind_model(model.config, rope_table(model.config, tokens, device),
                    frozen(model.values, at::kFloat, device), "");
}

double mean_error(const Tensor& errors, const std::vector<int64_t>& layer_map) {
  double sum = 0.0;
  for (size_t i = 0; i < layer_map.size(); ++i) {
    sum += errors[static_cast<int64_t>(i)][layer_map[i]].item<double>();
  }
  return sum / static_cast<double>(layer_map.size());
}

}  // namespace

ClosedForm fit_closed_form(Pair& pair, const PairRecipe& recipe, const RidgeFitRecipe& fit,
                           const WindowSampler& sampler, const at::Device& device) {
  const at::NoGradGuard no_grad;
  const int64_t tokens = sampler.sequence_tokens();
  const Model base = bind(pair.base, tokens, device);
  const Model auxiliary = bind(pair.auxiliary, tokens, device);
  int64_t next_window = 0;
  const auto sums_over = [&](int64_t wanted_tokens) {
    RidgeSums sums(base.config, auxiliary.config, device);
    while (sums.rows() < wanted_tokens) {
      const int64_t missing = (wanted_tokens - sums.rows() + tokens - 1) / tokens;
      const int64_t n = std::min(kWindowsAtOnce, missing);
      const Tensor ids = read_samples(sampler, next_window, n).narrow(1, 0, tokens).to(device);
      sums.add(forward_cache(base, ids), forward_cache(auxiliary, ids));
      next_window += n;
    }
    return sums;
  };
  const RidgeSums training = sums_over(fit.tokens), held_out = sums_over(fit.held_out_tokens);
  const RidgeFit regression(training, fit.regularisation);
  const Tensor errors = regression.errors(held_out);
  if (recipe.layer_map.empty() && recipe.layer_map_rule != PairRecipe::LayerMapRule::kPaper) {
    pair.layer_map =
        best_layer_map(errors, recipe.layer_map_rule == PairRecipe::LayerMapRule::kRidge);
  }
  ClosedForm result{regression.predictor(pair.layer_map), mean_error(errors, pair.layer_map)};
  for (const auto& [name, value] : result.predictor) {
    if (!value.isfinite().all().item<bool>()) {
      throw TrainError("ridge: " + name + " is not finite; use a larger ridge.regularisation");
    }
  }
  return result;
}

void train_ridge(const RidgeRecipe& recipe, const at::Device& device, bool quiet) {
  const WindowSampler sampler(recipe.data, recipe.seed);
  check_pair(recipe.pair, recipe.data, sampler.index());
  Pair pair = load_pair(recipe.pair);
  const ClosedForm fit = fit_closed_form(pair, recipe.pair, recipe.fit, sampler, device);
  if (!quiet) {
    fmt::print(stderr, "ridge  layer map {}  unexplained variance {:.4f}  on {}\n",
               fmt::join(pair.layer_map, " "), fit.held_out_error, device.str());
  }
  const auto& output = recipe.output;
  AtomicDirectory target(output.directory);
  write_bundle(target.staging(), output.directory,
               {.pair = pair,
                .recipe = recipe.pair,
                .auxiliary = pair.auxiliary.values,
                .predictor = fit.predictor,
                .store = stored_as(output),
                .copy_base = recipe.pair.copy_base,
                .training = {{"method", method_name(recipe.pair)},
                             {"predictor", "ridge"},
                             {"tokens", recipe.fit.tokens},
                             {"regularisation", recipe.fit.regularisation},
                             {"held_out_error", fit.held_out_error},
                             {"seed", recipe.seed}}});
  target.commit();
}

}  // namespace kvcast::train

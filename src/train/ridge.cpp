#include "train/ridge.h"

#include <algorithm>
#include <limits>

namespace kvcast::train {
namespace {

/// All rows of one layer's keys or values, heads concatenated, [rows, width] f64.
Tensor rows_of(const Tensor& x) { return x.flatten(2).flatten(0, 1).to(at::kDouble); }

std::vector<int64_t> kv_widths(const ModelConfig& config) {
  std::vector<int64_t> widths;
  for (int64_t i = 0; i < config.n_layers(); ++i) widths.push_back(config.kv_width(i));
  return widths;
}

}  // namespace

RidgeSums::RidgeSums(const ModelConfig& base, const ModelConfig& auxiliary,
                     const at::Device& device)
    : RidgeSums(kv_widths(base), kv_widths(auxiliary), device) {}

RidgeSums::RidgeSums(std::vector<int64_t> target_widths, const std::vector<int64_t>& input_widths,
                     const at::Device& device)
    : base_widths_(std::move(target_widths)) {
  int64_t total = 0;
  for (const int64_t width : base_widths_) total += width;
  const auto options = at::TensorOptions().dtype(at::kDouble).device(device);
  for (Kind* kind : {&keys_, &values_}) {
    for (const int64_t width : input_widths) {
      kind->xx.push_back(at::zeros({width, width}, options));
      kind->xy.push_back(at::zeros({width, total}, options));
      kind->x.push_back(at::zeros({width}, options));
    }
    kind->y = at::zeros({total}, options);
    kind->yy = at::zeros({total}, options);
  }
}

void RidgeSums::add(const Cache& base, const Cache& auxiliary) {
  const at::NoGradGuard no_grad;
  add(keys_, &LayerCache::key_prenorm, base, auxiliary);
  add(values_, &LayerCache::value, base, auxiliary);
  rows_ += base.at(0).value.size(0) * base[0].value.size(1);
}

void RidgeSums::add(Kind& kind, Tensor LayerCache::*member, const Cache& base,
                    const Cache& auxiliary) {
  std::vector<Tensor> targets;
  for (const auto& layer : base) targets.push_back(rows_of(layer.*member));
  const Tensor y = at::cat(targets, 1);  // [rows, sum of b]
  kind.y += y.sum(0);
  kind.yy += y.square().sum(0);
  for (size_t j = 0; j < auxiliary.size(); ++j) {
    const Tensor x = rows_of(auxiliary[j].*member);  // [rows, a]
    kind.xx[j].addmm_(x.t(), x);
    kind.xy[j].addmm_(x.t(), y);
    kind.x[j] += x.sum(0);
  }
}

RidgeFit::RidgeFit(const RidgeSums& sums, double regularisation)
    : base_widths_(sums.base_widths_),
      keys_(solve(sums.keys_, sums.rows_, regularisation)),
      values_(solve(sums.values_, sums.rows_, regularisation)) {}

RidgeFit::Kind RidgeFit::solve(const RidgeSums::Kind& sums, int64_t rows, double regularisation) {
  const at::NoGradGuard no_grad;
  const auto n = static_cast<double>(rows);
  const Tensor mean_y = sums.y.cpu() / n;
  Kind fit;
  for (size_t j = 0; j < sums.xx.size(); ++j) {
    const Tensor mean_x = sums.x[j].cpu() / n;
    Tensor covariance = sums.xx[j].cpu() / n - at::outer(mean_x, mean_x);
    const Tensor cross = sums.xy[j].cpu() / n - at::outer(mean_x, mean_y);
    const double mean_variance = covariance.diagonal().mean().item<double>();
    // The smallest positive number keeps a constant input solvable.
    covariance.diagonal().add_(
        std::max(regularisation * mean_variance, std::numeric_limits<double>::min()));
    const Tensor weight = at::linalg_solve(covariance, cross);
    fit.bias.push_back(mean_y - at::matmul(mean_x, weight));
    fit.weight.push_back(weight);
  }
  return fit;
}

TensorMap RidgeFit::predictor(const std::vector<int64_t>& layer_map) const {
  TensorMap values;
  const auto add = [&](const char* name, const Kind& kind) {
    int64_t first = 0;
    for (size_t i = 0; i < layer_map.size(); ++i) {
      const auto j = static_cast<size_t>(layer_map[i]);
      const std::string prefix = name + std::to_string(i);
      const Tensor weight = kind.weight[j].narrow(1, first, base_widths_[i]);
      const Tensor bias = kind.bias[j].narrow(0, first, base_widths_[i]);
      values.emplace(prefix + ".weight", weight.t().to(at::kFloat).contiguous());
      values.emplace(prefix + ".bias", bias.to(at::kFloat).contiguous());
      first += base_widths_[i];
    }
  };
  add("key_transforms.", keys_);
  add("value_transforms.", values_);
  return values;
}

Tensor RidgeFit::errors(const RidgeSums& held_out) const {
  return (errors(keys_, held_out.keys_, held_out.rows_) +
          errors(values_, held_out.values_, held_out.rows_)) /
         2.0;
}

/// |Y - X W - b|² expands into the sums, so the held-out tokens need no second pass.
Tensor RidgeFit::errors(const Kind& fit, const RidgeSums::Kind& held_out, int64_t rows) const {
  const at::NoGradGuard no_grad;
  const auto n = static_cast<double>(rows);
  const Tensor y = held_out.y.cpu(), yy = held_out.yy.cpu();
  const Tensor variance = yy - y.square() / n;  // [sum of b], times n
  std::vector<Tensor> by_auxiliary_layer;
  for (size_t j = 0; j < fit.weight.size(); ++j) {
    const Tensor &w = fit.weight[j], &b = fit.bias[j];
    const Tensor xw = at::matmul(held_out.x[j].cpu(), w);  // sums of X W
    const Tensor residual = yy - 2.0 * (held_out.xy[j].cpu() * w).sum(0) - 2.0 * b * y +
                            (at::matmul(held_out.xx[j].cpu(), w) * w).sum(0) + 2.0 * b * xw +
                            n * b.square();
    std::vector<Tensor> layers;
    int64_t first = 0;
    for (const int64_t width : base_widths_) {
      layers.push_back(residual.narrow(0, first, width).sum() /
                       variance.narrow(0, first, width).sum());
      first += width;
    }
    by_auxiliary_layer.push_back(at::stack(layers));
  }
  return at::stack(by_auxiliary_layer, 1);
}

std::vector<int64_t> best_layer_map(const Tensor& errors, bool monotone) {
  const Tensor table = errors.to(at::kCPU, at::kDouble).contiguous();
  const int64_t base_layers = table.size(0), auxiliary_layers = table.size(1);
  const auto error = [&](int64_t i, int64_t j) {
    return table.data_ptr<double>()[i * auxiliary_layers + j];
  };
  std::vector<int64_t> map(static_cast<size_t>(base_layers));
  // best[j]: the least sum of the layers so far with the last one reading j. from[i][j]: what the
  // layer before i reads then.
  std::vector<double> best(static_cast<size_t>(auxiliary_layers), 0.0);
  std::vector<std::vector<int64_t>> from(map.size(), std::vector<int64_t>(best.size()));
  const auto n = static_cast<int64_t>(best.size());
  for (int64_t i = 0; i < base_layers; ++i) {
    std::vector<double> next(best.size());
    for (int64_t j = 0; j < n; ++j) {
      int64_t least = monotone ? 0 : j;
      for (int64_t k = 0; k < (monotone ? j + 1 : n); ++k) {
        if (best[k] < best[least]) least = k;
      }
      from[i][j] = least;
      next[j] = best[least] + error(i, j);
    }
    best = next;
  }
  int64_t j = std::min_element(best.begin(), best.end()) - best.begin();
  for (int64_t i = base_layers - 1; i >= 0; --i) {
    map[i] = j;
    j = from[i][j];
  }
  return map;
}

}  // namespace kvcast::train

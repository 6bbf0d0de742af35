#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/data/error.h"

namespace kvcast::train {

AdamW::AdamW(const FlatParameters& parameters, const OptimizerRecipe& recipe)
    : parameters_(parameters), recipe_(recipe) {
  const auto moments = [](const Tensor& leaf, double weight_decay) {
    const Tensor values = leaf.detach();
    return Moments{values, at::zeros_like(values), at::zeros_like(values), weight_decay};
  };
  matrices_ = moments(parameters.matrices(), recipe.weight_decay);
  vectors_ = moments(parameters.vectors(), 0.0);
}

Tensor AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  Tensor grads[2] = {parameters_.matrices().grad(), parameters_.vectors().grad()};
  for (const Tensor& grad : grads) {
    if (!grad.defined()) throw TrainError("a step without a gradient");
  }
  const Tensor norm = at::stack({grads[0].norm(), grads[1].norm()}).norm();
  // At most clip_norm; gradients are divided by it, so nothing waits for its value.
  const Tensor divisor = ((norm + 1e-6) / recipe_.clip_norm).clamp_min(1.0);
  ++steps_;
  update(matrices_, grads[0], divisor, learning_rate);
  update(vectors_, grads[1], divisor, learning_rate);
  return norm;
}

void AdamW::update(Moments& m, Tensor& grad, const Tensor& divisor, double learning_rate) const {
#if KVCAST_TORCH_AT_LEAST(2, 4)
  if (grad.is_cuda()) {
    const Tensor steps = at::full({}, static_cast<double>(steps_), divisor.options());
    at::_fused_adamw_({m.parameter}, {grad}, {m.exp_avg}, {m.exp_avg_sq}, {}, {steps},
                      learning_rate, recipe_.beta1, recipe_.beta2, m.weight_decay, recipe_.eps,
                      /*amsgrad=*/false, /*maximize=*/false, divisor);
    grad.zero_();
    return;
  }
#endif
  const double correction1 = 1.0 - std::pow(recipe_.beta1, static_cast<double>(steps_));
  const double correction2 = 1.0 - std::pow(recipe_.beta2, static_cast<double>(steps_));
  grad.div_(divisor);
  m.parameter.mul_(1.0 - learning_rate * m.weight_decay);
  m.exp_avg.lerp_(grad, 1.0 - recipe_.beta1);
  m.exp_avg_sq.mul_(recipe_.beta2).addcmul_(grad, grad, 1.0 - recipe_.beta2);
  const Tensor denominator = m.exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(recipe_.eps);
  m.parameter.addcdiv_(m.exp_avg, denominator, -learning_rate / correction1);
  grad.zero_();
}

TensorMap AdamW::state() const {
  TensorMap result;
  for (const auto& [name, value] : parameters_.split_by_name(matrices_.exp_avg, vectors_.exp_avg)) {
    result.emplace("exp_avg." + name, value);
  }
  for (const auto& [name, value] :
       parameters_.split_by_name(matrices_.exp_avg_sq, vectors_.exp_avg_sq)) {
    result.emplace("exp_avg_sq." + name, value);
  }
  return result;
}

void AdamW::restore(const TensorMap& state, int64_t steps) {
  for (const auto& [name, destination] : this->state()) {
    const auto value = state.find(name);
    if (value == state.end() || value->second.sizes() != destination.sizes()) {
      throw TrainError("the optimizer's state has no fitting tensor " + name);
    }
    Tensor(destination).copy_(value->second);
  }
  steps_ = steps;
}

double learning_rate_at(const OptimizerRecipe& recipe, int64_t step, double progress,
                        double warmup_share) {
  if (step < recipe.warmup_steps) {
    return recipe.learning_rate * static_cast<double>(step + 1) /
           static_cast<double>(recipe.warmup_steps);
  }
  const double decayed =
      warmup_share < 1.0 ? std::clamp((progress - warmup_share) / (1.0 - warmup_share), 0.0, 1.0)
                         : 1.0;
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * decayed));
  return recipe.learning_rate * (recipe.final_fraction + (1.0 - recipe.final_fraction) * cosine);
}

}  // namespace kvcast::train

#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/model_files.h"

namespace kvcast::train {
namespace {

constexpr std::string_view kFirstMoment = "exp_avg.", kSecondMoment = "exp_avg_sq.";

}  // namespace

AdamW::AdamW(FlatParameters& parameters, const OptimizerRecipe& recipe)
    : parameters_(parameters),
      recipe_(recipe),
      exp_avg_(parameters.zero_shares()),
      exp_avg_sq_(parameters.zero_shares()) {}

Tensor AdamW::step(const Gradients& gradients, double learning_rate) {
  const at::NoGradGuard no_grad;
  const Buffers& grads = gradients.shares();
  Tensor square = at::stack({grads[0].norm(), grads[1].norm()}).square().sum();
  parameters_.processes().sum(square)->wait();
  const Tensor norm = square.sqrt();
  // At most clip_norm; gradients are divided by it, so nothing waits for its value.
  const Tensor divisor = ((norm + 1e-6) / recipe_.clip_norm).clamp_min(1.0);
  ++steps_;
  for (const size_t buffer : {0, 1}) update(buffer, grads[buffer], divisor, learning_rate);
  parameters_.publish();
  return norm;
}

void AdamW::update(size_t buffer, Tensor grad, const Tensor& divisor, double learning_rate) {
  Tensor parameter = parameters_.master()[buffer];
  Tensor exp_avg = exp_avg_[buffer], exp_avg_sq = exp_avg_sq_[buffer];
  const double weight_decay = buffer == 0 ? recipe_.weight_decay : 0.0;  // of matrices alone
#if KVCAST_TORCH_AT_LEAST(2, 4)
  if (grad.is_cuda()) {
    const Tensor steps = at::full({}, static_cast<double>(steps_), divisor.options());
    at::_fused_adamw_({parameter}, {grad}, {exp_avg}, {exp_avg_sq}, {}, {steps}, learning_rate,
                      recipe_.beta1, recipe_.beta2, weight_decay, recipe_.eps, /*amsgrad=*/false,
                      /*maximize=*/false, divisor);
    return;
  }
#endif
  const double correction1 = 1.0 - std::pow(recipe_.beta1, static_cast<double>(steps_));
  const double correction2 = 1.0 - std::pow(recipe_.beta2, static_cast<double>(steps_));
  grad.div_(divisor);
  parameter.mul_(1.0 - learning_rate * weight_decay);
  exp_avg.lerp_(grad, 1.0 - recipe_.beta1);
  exp_avg_sq.mul_(recipe_.beta2).addcmul_(grad, grad, 1.0 - recipe_.beta2);
  const Tensor denominator = exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(recipe_.eps);
  parameter.addcdiv_(exp_avg, denominator, -learning_rate / correction1);
}

TensorMap AdamW::state() const {
  TensorMap result;
  add_with_prefix(result, kFirstMoment, parameters_.gathered(exp_avg_));
  add_with_prefix(result, kSecondMoment, parameters_.gathered(exp_avg_sq_));
  return result;
}

void AdamW::restore(const TensorMap& state, int64_t steps) {
  parameters_.take_shares(without_prefix(state, kFirstMoment), exp_avg_);
  parameters_.take_shares(without_prefix(state, kSecondMoment), exp_avg_sq_);
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

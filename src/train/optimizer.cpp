#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "train/data/error.h"
#include "train/model_files.h"
#include "train/muon.h"

namespace kvcast::train {
namespace {

constexpr std::string_view kFirstMoment = "exp_avg.", kSecondMoment = "exp_avg_sq.";

}  // namespace

AdamW::AdamW(FlatParameters& parameters, const OptimizerRecipe& recipe)
    : parameters_(parameters),
      recipe_(recipe),
      exp_avg_(parameters.zero_shares()),
      exp_avg_sq_(parameters.zero_shares()) {
  if (!recipe.muon) return;
  if (parameters.processes().count() > 1) {
    throw TrainError("optimizer.matrices: muon needs whole matrices: expected one process");
  }
  for (const auto& [name, slot] : parameters.layout().slots()) {
    if (slot.buffer != 0) continue;
    const bool of_tokens =
        name.ends_with("token_embeddings.weight") || name.ends_with("lm_head.weight");
    (of_tokens ? other_slots_ : muon_slots_[slot.shape]).push_back(slot);
  }
}

Tensor AdamW::step(const Gradients& gradients, double learning_rate) {
  const at::NoGradGuard no_grad;
  const Buffers& grads = gradients.shares();
  Tensor square = at::stack({grads[0].norm(), grads[1].norm()}).square().sum();
  parameters_.processes().sum(square)->wait();
  const Tensor norm = square.sqrt();
  // At most clip_norm; gradients are divided by it, so nothing waits for its value.
  const Tensor divisor = ((norm + 1e-6) / recipe_.clip_norm).clamp_min(1.0);
  ++steps_;
  if (recipe_.muon) {
    update_by_muon(grads[0], divisor, learning_rate);
  } else {
    update(0, grads[0], divisor, learning_rate);
  }
  update(1, grads[1], divisor, learning_rate);
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

void AdamW::update_by_muon(Tensor grad, const Tensor& divisor, double learning_rate) {
  const auto part = [](const Tensor& buffer, const Slot& slot) {
    return ParameterLayout::part({buffer, Tensor()}, slot);
  };
  const Tensor parameter = parameters_.master()[0];
  grad.div_(divisor);
  exp_avg_[0].lerp_(grad, 1.0 - recipe_.beta1);
  parameter.mul_(1.0 - learning_rate * recipe_.weight_decay);
  for (const Slot& slot : other_slots_) {
    const double correction1 = 1.0 - std::pow(recipe_.beta1, static_cast<double>(steps_));
    const double correction2 = 1.0 - std::pow(recipe_.beta2, static_cast<double>(steps_));
    const Tensor own = part(grad, slot), square = part(exp_avg_sq_[0], slot);
    square.mul_(recipe_.beta2).addcmul_(own, own, 1.0 - recipe_.beta2);
    part(parameter, slot)
        .addcdiv_(part(exp_avg_[0], slot), (square / correction2).sqrt_().add_(recipe_.eps),
                  -learning_rate / correction1);
  }
  for (const auto& [shape, slots] : muon_slots_) {
    std::vector<Tensor> ahead;  // Nesterov's momentum
    for (const Slot& slot : slots) {
      ahead.push_back(part(grad, slot).lerp(part(exp_avg_[0], slot), recipe_.beta1));
    }
    const Tensor steps = orthogonalised(at::stack(ahead));
    const double rate = -learning_rate * muon_scale(shape[0], shape[1]);
    for (size_t i = 0; i < slots.size(); ++i) {
      part(parameter, slots[i]).add_(steps[static_cast<int64_t>(i)], rate);
    }
  }
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

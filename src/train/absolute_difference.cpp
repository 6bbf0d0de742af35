#include "train/absolute_difference.h"

namespace kvcast::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct AbsoluteDifference : Function<AbsoluteDifference> {
  static Tensor forward(AutogradContext* ctx, const Tensor& predicted, const Tensor& target,
                        const Tensor& row_weights) {
    ctx->save_for_backward({predicted, target, row_weights});
    const Tensor rows = (predicted.to(at::kFloat) - target).abs_().flatten(2).flatten(0, 1);
    return at::mv(rows.t(), row_weights).mean();
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &predicted = saved[0], &target = saved[1];
    const auto width = static_cast<double>(predicted.size(2) * predicted.size(3));
    const Tensor weights = (saved[2] * grads[0] / width)
                               .view({predicted.size(0), predicted.size(1), 1, 1})
                               .to(predicted.scalar_type());
    return {(predicted - target).sign_().mul_(weights), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor mean_absolute_difference(const Tensor& predicted, const Tensor& target,
                                const Tensor& row_weights) {
  return AbsoluteDifference::apply(predicted, target, row_weights);
}

}  // namespace kvcast::train

#include "train/gradients.h"

namespace kvcast::train {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Hands out a parameter; its gradient goes into the flat buffer instead of on through the graph.
struct Gradients::Arrival : Function<Arrival> {
  static Tensor forward(AutogradContext* ctx, const Tensor& /*anchor*/, Gradients* gradients,
                        const ParameterLayout::Slot* slot) {
    ctx->saved_data["gradients"] = reinterpret_cast<int64_t>(gradients);
    ctx->saved_data["slot"] = reinterpret_cast<int64_t>(slot);
    return ParameterLayout::part(gradients->parameters_.compute(), *slot).detach();
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto* gradients = reinterpret_cast<Gradients*>(ctx->saved_data["gradients"].toInt());
    const auto* slot =
        reinterpret_cast<const ParameterLayout::Slot*>(ctx->saved_data["slot"].toInt());
    gradients->arrive(*slot, grads[0]);
    return {Tensor(), Tensor(), Tensor()};
  }
};

Gradients::Gradients(FlatParameters& parameters)
    : parameters_(parameters),
      anchor_(zeros_f32({}, parameters.master()[0].device()).set_requires_grad(true)) {
  const ParameterLayout& layout = parameters.layout();
  for (const size_t buffer : {0, 1}) {
    whole_[buffer] = zeros_f32({layout.size(buffer)}, anchor_.device());
  }
  shares_ = layout.shares() == 1 ? whole_ : parameters.zero_shares();
}

TensorMap Gradients::views(bool last) {
  const auto& buckets = parameters_.layout().buckets();
  sending_ = last;
  pending_.clear();
  missing_.clear();
  for (const auto& bucket : buckets) missing_.push_back(bucket.members);
  TensorMap result;
  for (const auto& [name, slot] : parameters_.layout().slots()) {
    result.emplace(name, Arrival::apply(anchor_, this, &slot));
  }
  return result;
}

void Gradients::arrive(const ParameterLayout::Slot& slot, const Tensor& gradient) {
  const at::NoGradGuard no_grad;
  ParameterLayout::part(whole_, slot).add_(gradient);
  --missing_[slot.bucket];
  if (sending_) send_whole_buckets();
}

void Gradients::send_whole_buckets() {
  const auto& layout = parameters_.layout();
  while (pending_.size() < layout.buckets().size() && missing_[pending_.size()] == 0) {
    const auto& bucket = layout.buckets()[pending_.size()];
    Tensor whole = ParameterLayout::part(whole_, bucket);
    Tensor share = layout.share_part(shares_, bucket);
    pending_.push_back(parameters_.processes().sum_shares(whole, share));
  }
}

void Gradients::finish() {
  // Parameters that no loss reached have what earlier passes left.
  missing_.assign(missing_.size(), 0);
  send_whole_buckets();
  for (const auto& one : pending_) one->wait();
  pending_.clear();
}

void Gradients::clear() {
  for (Tensor& buffer : whole_) buffer.zero_();
}

}  // namespace kvcast::train

#include "train/recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/custom_class.h>

#include <utility>

namespace kvcast::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// A function where libtorch keeps values for the backward pass.
struct Kept : torch::CustomClassHolder {
  explicit Kept(std::function<Tensors(const Tensors&)> f) : function(std::move(f)) {}
  std::function<Tensors(const Tensors&)> function;
};

struct Recomputed : Function<Recomputed> {
  static variable_list forward(AutogradContext* ctx, const c10::intrusive_ptr<Kept>& kept,
                               at::TensorList inputs) {
    variable_list outputs = kept->function(inputs.vec());  // without gradients: Function's doing
    ctx->saved_data["function"] = c10::IValue::make_capsule(kept);
    ctx->save_for_backward(inputs.vec());
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto holder = ctx->saved_data["function"].toCapsule();
    const variable_list saved = ctx->get_saved_variables();
    Tensors inputs;
    variable_list wanted;
    for (const Tensor& input : saved) {
      Tensor leaf = input.detach();
      if (input.requires_grad()) wanted.push_back(leaf.set_requires_grad(true));
      inputs.push_back(leaf);
    }
    Tensors outputs;
    {
      const at::AutoGradMode with_gradients(true);
      outputs = static_cast<const Kept&>(*holder).function(inputs);
    }
    variable_list roots, root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grads[i]);
    }
    variable_list found;
    if (!roots.empty()) {
      found = torch::autograd::grad(roots, wanted, root_grads, /*retain_graph=*/{},
                                    /*create_graph=*/false, /*allow_unused=*/true);
    }
    variable_list result = {Tensor()};  // of the function itself
    size_t next = 0;
    for (const Tensor& input : inputs) {
      const bool has = input.requires_grad() && !found.empty();
      result.push_back(has ? found[next++] : Tensor());
    }
    return result;
  }
};

}  // namespace

Tensors recomputed(std::function<Tensors(const Tensors&)> function, const Tensors& inputs) {
  // libtorch's Function takes no undefined tensors: they are put back inside.
  Tensors defined;
  std::vector<bool> is_defined;
  for (const Tensor& input : inputs) {
    is_defined.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  auto with_gaps = [function = std::move(function), is_defined](const Tensors& given) {
    Tensors all;
    size_t next = 0;
    for (const bool here : is_defined) all.push_back(here ? given[next++] : Tensor());
    return function(all);
  };
  // As a TensorList: of a vector libtorch would not see the tensors.
  return Recomputed::apply(c10::make_intrusive<Kept>(std::move(with_gaps)),
                           at::TensorList(defined));
}

}  // namespace kvcast::train

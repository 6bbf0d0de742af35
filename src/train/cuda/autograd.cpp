#include "train/cuda/autograd.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "train/cuda/kernels.h"

namespace kvcast::train::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// An input that may be missing; apply() takes no undefined tensors.
using Maybe = std::optional<Tensor>;
Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : Maybe(); }

Bf16* bits(const Tensor& x) {
  return x.defined() ? reinterpret_cast<Bf16*>(x.data_ptr<at::BFloat16>()) : nullptr;
}
float* floats(const Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; }
cudaStream_t stream_of(const Tensor& x) {
  return c10::cuda::getCurrentCUDAStream(x.get_device()).stream();
}
void check_launch() { C10_CUDA_CHECK(cudaGetLastError()); }

Tensor empty_f32(at::IntArrayRef shape, const Tensor& like) {
  return at::empty(shape, like.options().dtype(at::kFloat));
}

struct AddRmsNorm : Function<AddRmsNorm> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Maybe& delta,
                               const Tensor& weight, double eps) {
    const c10::cuda::CUDAGuard guard(x.device());
    const int64_t width = x.size(-1), rows = x.numel() / width;
    const Tensor in = x.contiguous();
    const Tensor added = delta ? delta->contiguous() : Tensor();
    const Tensor sum = delta ? at::empty_like(in) : in;
    Tensor normed = at::empty_like(in);
    Tensor inverse_rms = empty_f32({rows}, in);
    rms_norm_forward(bits(in), bits(added), bits(weight), bits(sum), bits(normed),
                     floats(inverse_rms), rows, static_cast<int>(width), static_cast<float>(eps),
                     stream_of(in));
    check_launch();
    ctx->save_for_backward({sum, weight, inverse_rms});
    ctx->saved_data["has_delta"] = delta.has_value();
    // Without a delta the sum is the input: handing it out again would alias it.
    return delta ? variable_list{normed, sum} : variable_list{normed};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &sum = saved[0], &weight = saved[1], &inverse_rms = saved[2];
    const c10::cuda::CUDAGuard guard(sum.device());
    const bool has_delta = ctx->saved_data["has_delta"].toBool();
    const Tensor residual = has_delta && grads[1].defined() ? grads[1].contiguous() : Tensor();
    if (!grads[0].defined()) return {residual, residual, Tensor(), Tensor()};
    const Tensor grad_normed = grads[0].contiguous();
    const int64_t width = sum.size(-1), rows = sum.numel() / width;
    Tensor grad_sum = at::empty_like(sum);
    Tensor partials = empty_f32({rms_norm_backward_blocks(rows), width}, sum);
    rms_norm_backward(bits(grad_normed), bits(residual), bits(sum), bits(weight),
                      floats(inverse_rms), bits(grad_sum), floats(partials), rows,
                      static_cast<int>(width), stream_of(sum));
    check_launch();
    return {grad_sum, has_delta ? grad_sum : Tensor(), partials.sum(0).to(weight.scalar_type()),
            Tensor()};
  }
};

Heads shape_of(const Tensor& x) {
  return {.rows = x.size(0) * x.size(1),
          .row_stride = x.stride(1),
          .heads = static_cast<int>(x.size(2)),
          .head_dim = static_cast<int>(x.size(3))};
}

/// Heads of a row adjacent, rows evenly spaced: what the kernels can address; else a copy.
Tensor addressable(const Tensor& x) {
  const bool even = x.stride(3) == 1 && x.stride(2) == x.size(3) &&
                    (x.size(0) == 1 || x.stride(0) == x.size(1) * x.stride(1)) &&
                    x.stride(1) % 8 == 0 && x.storage_offset() % 8 == 0;
  return even ? x : x.contiguous();
}

struct HeadNormRope : Function<HeadNormRope> {
  static Rope rope_of(const Tensor& cos, const Tensor& sin, int64_t first, int64_t tokens) {
    return {.cos = floats(cos), .sin = floats(sin), .first = first, .tokens = tokens};
  }

  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Maybe& norm_weight,
                        const Maybe& cos_table, const Maybe& sin_table, double eps, int64_t first) {
    const c10::cuda::CUDAGuard guard(x.device());
    const Tensor weight = norm_weight.value_or(Tensor());
    const Tensor cos = cos_table.value_or(Tensor()), sin = sin_table.value_or(Tensor());
    const Tensor in = addressable(x);
    Tensor out = at::empty(in.sizes(), in.options());
    head_norm_rope_forward(bits(in), shape_of(in), bits(weight), static_cast<float>(eps),
                           rope_of(cos, sin, first, in.size(1)), bits(out), stream_of(in));
    check_launch();
    ctx->save_for_backward({in, weight, cos, sin});
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["first"] = first;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &cos = saved[2], &sin = saved[3];
    const c10::cuda::CUDAGuard guard(x.device());
    const Heads shape = shape_of(x);
    const Tensor grad_out = addressable(grads[0]);
    Tensor grad_x = at::empty(x.sizes(), x.options());
    Tensor partials;
    if (weight.defined()) {
      partials = empty_f32({head_norm_rope_backward_blocks(shape), x.size(3)}, x);
    }
    head_norm_rope_backward(bits(grad_out), grad_out.stride(1), bits(x), shape, bits(weight),
                            static_cast<float>(ctx->saved_data["eps"].toDouble()),
                            rope_of(cos, sin, ctx->saved_data["first"].toInt(), x.size(1)),
                            bits(grad_x), floats(partials), stream_of(x));
    check_launch();
    Tensor grad_weight;
    if (weight.defined()) grad_weight = partials.sum(0).to(weight.scalar_type());
    return {grad_x, grad_weight, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct Swiglu : Function<Swiglu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up) {
    const c10::cuda::CUDAGuard guard(gate_up.device());
    const Tensor in = gate_up.contiguous();
    const int64_t width = in.size(-1) / 2, rows = in.numel() / (2 * width);
    auto shape = in.sizes().vec();
    shape.back() = width;
    Tensor out = at::empty(shape, in.options());
    swiglu_forward(bits(in), bits(out), rows, static_cast<int>(width), stream_of(in));
    check_launch();
    ctx->save_for_backward({in});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0];
    const c10::cuda::CUDAGuard guard(gate_up.device());
    const Tensor grad_out = grads[0].contiguous();
    const int64_t width = gate_up.size(-1) / 2, rows = gate_up.numel() / (2 * width);
    Tensor grad = at::empty_like(gate_up);
    swiglu_backward(bits(grad_out), bits(gate_up), bits(grad), rows, static_cast<int>(width),
                    stream_of(gate_up));
    check_launch();
    return {grad};
  }
};

}  // namespace

bool takes(const Tensor& x) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16 && x.size(-1) % 8 == 0;
}

bool takes_norm(const Tensor& x) { return takes(x) && x.size(-1) <= kMaxNormWidth; }

bool takes_heads(const Tensor& x) {
  const int64_t head_dim = x.size(-1);
  return takes(x) && x.dim() == 4 && head_dim <= 256 && (head_dim & (head_dim - 1)) == 0;
}

SumAndNorm add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& weight, double eps) {
  const auto out = AddRmsNorm::apply(x, maybe(delta), weight, eps);
  return {delta.defined() ? out[1] : x, out[0]};
}

Tensor head_norm_rope(const Tensor& x, const Tensor& weight, double eps, const RopeTable* rope,
                      int64_t first) {
  return HeadNormRope::apply(x, maybe(weight), rope != nullptr ? Maybe(rope->cos) : Maybe(),
                             rope != nullptr ? Maybe(rope->sin) : Maybe(), eps, first);
}

Tensor swiglu(const Tensor& gate_up) { return Swiglu::apply(gate_up); }

std::pair<Tensor, Tensor> cross_entropy_(Tensor& logits, const Tensor& targets,
                                         const Tensor& row_weights, double z_loss,
                                         bool write_gradient) {
  const c10::cuda::CUDAGuard guard(logits.device());
  const int64_t rows = logits.size(0);
  Tensor nll = empty_f32({rows}, logits), log_sum_exp = empty_f32({rows}, logits);
  const Tensor ids = targets.contiguous();
  const Tensor weights = write_gradient ? row_weights.contiguous() : Tensor();
  cross_entropy(bits(logits), ids.data_ptr<int64_t>(), floats(weights), static_cast<float>(z_loss),
                write_gradient, floats(nll), floats(log_sum_exp), rows,
                static_cast<int>(logits.size(1)), stream_of(logits));
  check_launch();
  return {nll, log_sum_exp};
}

DistilledRows distillation_(Tensor& student, const Tensor& teacher, const Tensor& targets,
                            const Tensor& row_weights, double lambda_cross_entropy, double z_loss,
                            double lambda_kl, bool write_gradient) {
  const c10::cuda::CUDAGuard guard(student.device());
  const int64_t rows = student.size(0);
  DistilledRows out{empty_f32({rows}, student), empty_f32({rows}, student),
                    empty_f32({rows}, student)};
  const Tensor ids = targets.contiguous(), weights = row_weights.contiguous();
  const DistillationWeights lambda{static_cast<float>(lambda_cross_entropy),
                                   static_cast<float>(z_loss), static_cast<float>(lambda_kl)};
  distillation(bits(student), bits(teacher), ids.data_ptr<int64_t>(), floats(weights), lambda,
               write_gradient, floats(out.nll), floats(out.log_sum_exp), floats(out.kl), rows,
               static_cast<int>(student.size(1)), stream_of(student));
  check_launch();
  return out;
}

}  // namespace kvcast::train::cuda

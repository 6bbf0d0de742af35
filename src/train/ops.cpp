#include "train/ops.h"

#include <cmath>

#ifdef KVCAST_CUDA_KERNELS
#include "train/cuda/autograd.h"
#endif

namespace kvcast::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// One buffer for both gradients: a split in autograd would write each into zeros and add them.
struct SwigluFunction : Function<SwigluFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    const auto parts = gate_up.chunk(2, -1);
    return at::silu(parts[0]).mul_(parts[1]);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0];
    const auto parts = gate_up.chunk(2, -1);
    Tensor grad = at::empty_like(gate_up);
    auto grad_parts = grad.chunk(2, -1);
    at::silu_backward_out(grad_parts[0], grads[0] * parts[1], parts[0]);
    at::mul_out(grad_parts[1], grads[0], at::silu(parts[0]));
    return {grad};
  }
};

/// The rotation [x1 cos - x2 sin | x2 cos + x1 sin], computed in f32. Its inverse is the same with
/// -sin, which is also its gradient.
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, double sign) {
  const auto parts = x.chunk(2, -1);
  Tensor out = at::empty(x.sizes(), x.options());
  auto out_parts = out.chunk(2, -1);
  out_parts[0].copy_((parts[0] * cos).addcmul_(parts[1], sin, -sign));
  out_parts[1].copy_((parts[1] * cos).addcmul_(parts[0], sin, sign));
  return out;
}

struct RopeFunction : Function<RopeFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos,
                        const Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return rotate(x, cos, sin, 1.0);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotate(grads[0], saved[0], saved[1], -1.0), Tensor(), Tensor()};
  }
};

/// True where key s must not be seen by query t: s > t + (S - T). [T, S]
Tensor future_mask(int64_t queries, int64_t keys, const at::Device& device) {
  return at::ones({queries, keys}, at::TensorOptions().dtype(at::kBool).device(device))
      .triu(keys - queries + 1);
}

#if !KVCAST_TORCH_AT_LEAST(2, 5)
/// softmax(q k^T / sqrt(head_dim)) v as written; query heads of one KV head are batched together.
Tensor plain_attention(const Tensor& query, const Tensor& key, const Tensor& value) {
  const int64_t batch = query.size(0), queries = query.size(1), head_dim = query.size(3);
  const int64_t kv_heads = key.size(2), keys = key.size(1), groups = query.size(2) / kv_heads;
  // [B, kv_heads, groups * T, head_dim] against [B, kv_heads, S, head_dim]
  const Tensor q = query.transpose(1, 2).reshape({batch, kv_heads, groups * queries, head_dim});
  Tensor scores = at::matmul(q, key.permute({0, 2, 3, 1})).to(at::kFloat);
  scores = (scores / std::sqrt(static_cast<double>(head_dim)))
               .view({batch, kv_heads, groups, queries, keys})
               .masked_fill(future_mask(queries, keys, query.device()),
                            -std::numeric_limits<float>::infinity());
  const Tensor weights = scores.softmax(-1).to(query.scalar_type());
  return at::matmul(weights.view({batch, kv_heads, groups * queries, keys}), value.transpose(1, 2))
      .view({batch, kv_heads * groups, queries, head_dim});
}
#endif

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes_norm(x)) return cuda::add_rms_norm(x, Tensor(), weight, eps).normed;
#endif
#if KVCAST_TORCH_AT_LEAST(2, 4)
  return at::rms_norm(x, weight.sizes(), weight.to(x.scalar_type()), eps);
#else
  const Tensor wide = x.to(at::kFloat);
  const Tensor inverse_rms = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return (wide * inverse_rms * weight).to(x.scalar_type());
#endif
}

SumAndNorm add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& weight, double eps) {
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes_norm(x)) return cuda::add_rms_norm(x, delta, weight, eps);
#endif
  const Tensor sum = delta.defined() ? x + delta : x;
  return {sum, rms_norm(sum, weight, eps)};
}

Tensor swiglu(const Tensor& gate_up) {
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes(gate_up)) return cuda::swiglu(gate_up);
#endif
  return SwigluFunction::apply(gate_up);
}

RopeTable make_rope_table(int64_t positions, const std::vector<double>& frequencies,
                          const at::Device& device) {
  const auto f64 = at::TensorOptions().dtype(at::kDouble);
  const Tensor angles = at::outer(at::arange(positions, f64), at::tensor(frequencies, f64));
  const auto finish = [&](const Tensor& t) { return t.to(at::kFloat).unsqueeze(1).to(device); };
  return {finish(angles.cos()), finish(angles.sin())};
}

Tensor apply_rope(const Tensor& x, const RopeTable& table, int64_t first) {
  const int64_t rows = x.size(1);
  TORCH_CHECK(first + rows <= table.cos.size(0), "the sequence is longer than the RoPE table");
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes_heads(x)) return cuda::head_norm_rope(x, Tensor(), 0.0, &table, first);
#endif
  return RopeFunction::apply(x, table.cos.narrow(0, first, rows), table.sin.narrow(0, first, rows));
}

Tensor head_norm_rope(const Tensor& x, const Tensor& weight, double eps, const RopeTable* rope,
                      int64_t first) {
#ifdef KVCAST_CUDA_KERNELS
  if (cuda::takes_heads(x) && (weight.defined() || rope != nullptr)) {
    TORCH_CHECK(rope == nullptr || first + x.size(1) <= rope->cos.size(0),
                "the sequence is longer than the RoPE table");
    return cuda::head_norm_rope(x, weight, eps, rope, first);
  }
#endif
  const Tensor normed = weight.defined() ? rms_norm(x, weight, eps) : x;
  return rope != nullptr ? apply_rope(normed, *rope, first) : normed;
}

Tensor causal_attention(const Tensor& query, const Tensor& key, const Tensor& value) {
  Tensor out;  // [B, query_heads, T, head_dim]
#if KVCAST_TORCH_AT_LEAST(2, 5)
  const int64_t queries = query.size(1), keys = key.size(1);
  if (query.is_cuda() && queries != keys && query.scalar_type() == at::kBFloat16) {
    // The general entry would need a mask, and with it a slow kernel; this one's causal rule is
    // ours: the last query sees the last key.
    const auto flash =
        at::_flash_attention_forward(query, key, value, std::nullopt, std::nullopt, queries, keys,
                                     /*dropout_p=*/0.0, /*is_causal=*/true,
                                     /*return_debug_mask=*/false);
    return std::get<0>(flash).flatten(2);
  }
  std::optional<Tensor> mask;
  if (queries != keys) mask = future_mask(queries, keys, query.device()).logical_not();
  out = at::scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2),
                                         value.transpose(1, 2), mask, /*dropout_p=*/0.0,
                                         /*is_causal=*/queries == keys, /*scale=*/std::nullopt,
                                         /*enable_gqa=*/query.size(2) != key.size(2));
#else
  out = plain_attention(query, key, value);
#endif
  return out.transpose(1, 2).reshape({query.size(0), query.size(1), query.size(2) * query.size(3)});
}

}  // namespace kvcast::train

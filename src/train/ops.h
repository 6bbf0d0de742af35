// The operations of an OpenELM layer (method §2) that libtorch does not have in one piece.
#pragma once

#include "train/torch.h"

namespace kvcast::train {

/// x / rms(x) * weight over the last dimension; statistics in f32, result in x's dtype.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

struct SumAndNorm {
  Tensor sum;     ///< x + delta
  Tensor normed;  ///< rms_norm of it
};
/// The residual connection and the norm that follows it; an undefined `delta` adds nothing.
SumAndNorm add_rms_norm(const Tensor& x, const Tensor& delta, const Tensor& weight, double eps);

/// silu(gate) * up for gate_up = [gate | up]: [..., 2 * ffn_dim] -> [..., ffn_dim].
Tensor swiglu(const Tensor& gate_up);

/// cos and sin of position * theta^(-2i / head_dim), each [positions, 1, head_dim / 2], f32.
struct RopeTable {
  Tensor cos;
  Tensor sin;
};
RopeTable make_rope_table(int64_t positions, const std::vector<double>& frequencies,
                          const at::Device& device);

/// Half-split ("rotate_half") RoPE of x [B, T, heads, head_dim]; row t is at position first + t.
Tensor apply_rope(const Tensor& x, const RopeTable& table, int64_t first = 0);

/// RMSNorm of every head (method §2, q_norm and k_norm; left out if `weight` is undefined), then
/// RoPE (left out if `rope` is null).
Tensor head_norm_rope(const Tensor& x, const Tensor& weight, double eps, const RopeTable* rope,
                      int64_t first = 0);

/// Causal grouped-query attention. query [B, T, query_heads, head_dim]; key and value
/// [B, S, kv_heads, head_dim], S >= T: the last query sees all S keys. Returns [B, T, query_heads *
/// head_dim].
Tensor causal_attention(const Tensor& query, const Tensor& key, const Tensor& value);

}  // namespace kvcast::train

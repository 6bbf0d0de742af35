// CUDA kernels for the parts of an OpenELM layer that are bound by memory, each one pass over its
// inputs. Plain pointers, so that nvcc never reads libtorch's headers; autograd.cpp is the caller.
//
// All matrices are row-major and bf16 (__nv_bfloat16 behind uint16_t), statistics and sums f32.
// Pointers are device memory, 16-byte aligned, and must stay alive until `stream` has passed the
// launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace kvcast::train::cuda {

using Bf16 = uint16_t;  ///< the bits of a bf16

/// Row widths that rms_norm takes: multiples of 8 up to this.
constexpr int kMaxNormWidth = 4096;

/// sum = x + delta (delta may be null: then sum is not written and x is normalised);
/// normed = sum / rms(sum) * weight; inverse_rms [rows] is kept for the backward pass.
void rms_norm_forward(const Bf16* x, const Bf16* delta, const Bf16* weight, Bf16* sum, Bf16* normed,
                      float* inverse_rms, int64_t rows, int width, float eps, cudaStream_t stream);

/// Blocks that rms_norm_backward runs, each of which writes one row of weight_partials.
int rms_norm_backward_blocks(int64_t rows);

/// grad_sum = grad of the sum: grad_residual (may be null) + what comes through the norm.
/// weight_partials [blocks, width]: the caller sums them over blocks.
void rms_norm_backward(const Bf16* grad_normed, const Bf16* grad_residual, const Bf16* sum,
                       const Bf16* weight, const float* inverse_rms, Bf16* grad_sum,
                       float* weight_partials, int64_t rows, int width, cudaStream_t stream);

/// Heads of one projection: row r, head h starts at x + r * row_stride + h * head_dim.
struct Heads {
  int64_t rows;        ///< B * T
  int64_t row_stride;  ///< elements
  int heads;
  int head_dim;  ///< 8, 16, 32, 64, 128 or 256
};

/// Half-split RoPE: row r is at position first + r % tokens. Null tables: no rotation.
struct Rope {
  const float* cos;  ///< [positions, head_dim / 2]
  const float* sin;
  int64_t first;
  int64_t tokens;
};

/// out [rows, heads, head_dim] = rope(x / rms(x) * weight); a null weight: no norm.
void head_norm_rope_forward(const Bf16* x, const Heads& shape, const Bf16* weight, float eps,
                            const Rope& rope, Bf16* out, cudaStream_t stream);

int head_norm_rope_backward_blocks(const Heads& shape);

/// grad_x [rows, heads, head_dim] from grad_out (rows grad_row_stride apart); weight_partials
/// [blocks, head_dim] if weight is not null.
void head_norm_rope_backward(const Bf16* grad_out, int64_t grad_row_stride, const Bf16* x,
                             const Heads& shape, const Bf16* weight, float eps, const Rope& rope,
                             Bf16* grad_x, float* weight_partials, cudaStream_t stream);

/// gate_up [rows, 2 * width] -> out [rows, width] = silu(gate) * up. width % 8 == 0.
void swiglu_forward(const Bf16* gate_up, Bf16* out, int64_t rows, int width, cudaStream_t stream);
void swiglu_backward(const Bf16* grad_out, const Bf16* gate_up, Bf16* grad_gate_up, int64_t rows,
                     int width, cudaStream_t stream);

/// For every row of logits [rows, vocab] (vocab % 8 == 0): log_sum_exp and nll = log_sum_exp -
/// logits[target]. With `write_gradient` the logits are replaced by
/// row_weight * (softmax * (1 + 2 z_loss log_sum_exp) - onehot(target)).
void cross_entropy(Bf16* logits, const int64_t* targets, const float* row_weights, float z_loss,
                   bool write_gradient, float* nll, float* log_sum_exp, int64_t rows, int vocab,
                   cudaStream_t stream);

struct DistillationWeights {
  float cross_entropy, z_loss, kl;  ///< z_loss is within the cross-entropy's
};

/// Of every row of student logits q and teacher logits p [rows, vocab] (vocab % 8 == 0): nll and
/// log_sum_exp of q as above, kl = KL(p || q). With `write_gradient` q is replaced by row_weight *
/// (cross_entropy * (softmax(q) (1 + 2 z_loss log_sum_exp) - onehot(target)) + kl * (softmax(q) -
/// softmax(p))).
void distillation(Bf16* student, const Bf16* teacher, const int64_t* targets,
                  const float* row_weights, const DistillationWeights& lambda, bool write_gradient,
                  float* nll, float* log_sum_exp, float* kl, int64_t rows, int vocab,
                  cudaStream_t stream);

}  // namespace kvcast::train::cuda

// The arithmetic of the forward pass. One interface, a plain reference twin for each function
// (reference.h), and one implementation per instruction set chosen at start-up (isa.h).
//
// All activations are f32, row-major; what is only read by products may be bf16 (takes_bf16_rows).
// `threads` is the number of threads a call may use.
// For one instruction set, the result of a row does not depend on the number of threads, nor on the
// other rows of the call: a prompt in chunks, a batch and a single token give the same bits.
// Nothing here allocates in steady state: thread-local scratch grows and stays. Where it cannot
// grow, std::bad_alloc is thrown before anything is computed; nothing else throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/packed_matrix.h"

namespace kvcast {

/// True: products with `weight` round their input to bf16, and take rows that are rounded already
/// (`a_bf16`), in which k has no padding. Whoever computes such rows then writes them so
/// (`out_bf16`), and a pass over them is saved; the bits are the same.
bool takes_bf16_rows(const PackedMatrix& weight);
/// Elements from one row of `width` bf16 to the next: rows a power of two of bytes apart would
/// share cache sets.
constexpr int64_t bf16_row_stride(int64_t width) { return width + 32; }

/// out[r, :] = a[r, :] · Wᵀ (+ bias) (+ out[r, :]), with columns [0, W.n()).
struct MatmulArgs {
  const float* a = nullptr;          // [rows, W.k()], row stride a_stride
  const uint16_t* a_bf16 = nullptr;  // instead of a, where takes_bf16_rows(W)
  int64_t a_stride = 0;
  int64_t rows = 0;
  const PackedMatrix* weight = nullptr;  // W: [n, k]
  const float* bias = nullptr;           // [n] or null
  float* out = nullptr;                  // [rows, n], row stride out_stride
  int64_t out_stride = 0;
  bool accumulate = false;  ///< add to what is in `out` (residual connections)
};
void matmul(const MatmulArgs& args, int threads);

/// Several products that read the same `a` (same a, a_stride, rows, k in every element; the same
/// type of weights, or two that read_same_activations): the
/// activations are converted once and the threads are shared out over all columns together.
void matmul_shared_input(std::span<const MatmulArgs> products, int threads);

/// out[r, :] = x[r, :] / sqrt(mean(x[r, :]²) + eps) * weight. RMSNorm, computed in f32.
/// May work in place (out == x with equal strides).
struct RmsNormArgs {
  const float* x = nullptr;  // [rows, dim]
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [dim]
  float* out = nullptr;           // [rows, dim]
  uint16_t* out_bf16 = nullptr;   // instead of out
  int64_t out_stride = 0;
  int64_t rows = 0;
  int64_t dim = 0;
  float eps = 1e-6F;
};
void rms_norm(const RmsNormArgs& args, int threads);

/// For each row and head: optional RMSNorm over head_dim, then optional RoPE in the half-split form
/// (rotate_half) with the row's angles. May work in place, or write where a KV cache holds the row.
struct HeadNormRopeArgs {
  const float* x = nullptr;  // [rows, heads * head_dim], row stride x_stride
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  const float* norm_weight = nullptr;  // [head_dim]; null: no norm
  float eps = 1e-6F;
  const float* rope_cos = nullptr;  // [rows, head_dim / 2], of each row's position; null: no RoPE
  const float* rope_sin = nullptr;  // [rows, head_dim / 2]
  float* out = nullptr;             // [rows, heads, head_dim] by the strides
  uint16_t* out_bf16 = nullptr;     // instead of out, rounded
  int8_t* out_int8 = nullptr;       // instead of out: KvType::kInt8's rows
  bool rotate_int8 = false;         ///< of keys: what is rounded is the row turned by rotate_head
  int64_t out_row_stride = 0;       ///< elements from one row of a head to the next
  int64_t out_head_stride = 0;      ///< elements from one head of a row to the next
};
void head_norm_rope(const HeadNormRopeArgs& args, int threads);
/// Several of them, which share the threads.
void head_norm_rope(std::span<const HeadNormRopeArgs> parts, int threads);

/// out[r, j] = silu(gate_up[r, j]) * gate_up[r, ffn_dim + j].
struct SiluMulArgs {
  const float* gate_up = nullptr;  // [rows, 2 * ffn_dim]
  int64_t gate_up_stride = 0;
  float* out = nullptr;          // [rows, ffn_dim]
  uint16_t* out_bf16 = nullptr;  // instead of out
  int64_t out_stride = 0;
  int64_t rows = 0;
  int64_t ffn_dim = 0;
};
void silu_mul(const SiluMulArgs& args, int threads);

/// out[r, j] = silu(gate[r, j]) * up[r, j], [gate | up] = a[r, :] · Wᵀ: the first half of a gated
/// feed-forward layer in one pass, the same bits as matmul and silu_mul.
struct MatmulSiluArgs {
  const float* a = nullptr;          // [rows, W.k()], row stride a_stride
  const uint16_t* a_bf16 = nullptr;  // instead of a, where takes_bf16_rows(W)
  int64_t a_stride = 0;
  int64_t rows = 0;
  const PackedMatrix* weight = nullptr;  // W: [2 * ffn_dim, k], gate features first
  float* out = nullptr;                  // [rows, ffn_dim], row stride out_stride
  uint16_t* out_bf16 = nullptr;          // instead of out
  int64_t out_stride = 0;
};
void matmul_silu(const MatmulSiluArgs& args, int threads);

/// Causal attention of one sequence's new rows over its cache. Row r (0-based among the new rows)
/// sees cache rows 0 .. first_position + r. Blocked over keys with an online softmax.
struct AttentionArgs {
  const float* q = nullptr;  // [rows, query_heads * head_dim], after q_norm and RoPE
  int64_t q_stride = 0;
  int64_t rows = 0;
  int64_t first_position = 0;    ///< cache rows before the first new row
  const void* keys = nullptr;    // [kv_heads][head_stride], rows of kv_row_elements; k_norm, RoPE
                                 // applied
  const void* values = nullptr;  // [kv_heads][head_stride]
  int64_t head_stride = 0;       ///< elements from one KV head to the next
  float* out = nullptr;          // [rows, query_heads * head_dim]
  uint16_t* out_bf16 = nullptr;  // instead of out
  int64_t out_stride = 0;
  /// If not null: attention probabilities of the last row, mean over query heads,
  /// [first_position + rows].
  float* last_row_probabilities = nullptr;
};
/// How keys and values are held: as computed, rounded to bf16, or in 8 bits, where a row of a head
/// is its step (an f32, in the machine's order) and the codes round(x / step), step = max|x| / 127,
/// of keys after a rotation (rotation_inl.h); a row with an infinity or NaN has NaN for its step.
/// Steps multiply scores and probabilities. Queries and probabilities are rounded too: over bf16 to
/// bf16 by AVX-512 BF16, over 8 bits to 16 bits on x86-64.
enum class KvType { kF32, kBf16, kInt8 };
/// Bytes of what rows consist of: floats, bf16, single bytes.
constexpr int64_t kv_element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kBf16 ? 2 : 1;
}
/// Most elements of a head.
inline constexpr int64_t kMostHeadElements = 512;
/// The step in front of the codes.
inline constexpr int64_t kKvStepBytes = sizeof(float);
/// Elements from one row of a head to the next.
constexpr int64_t kv_row_elements(KvType type, int64_t head_dim) {
  return type == KvType::kInt8 ? kKvStepBytes + head_dim : head_dim;
}
constexpr int64_t kv_row_bytes(KvType type, int64_t head_dim) {
  return kv_row_elements(type, head_dim) * kv_element_bytes(type);
}
/// All sequences of a batch share the head layout; work is split over sequences, heads and rows.
/// Query head h reads KV head h / (query_heads / kv_heads). Scores are scaled by 1/sqrt(head_dim).
struct AttentionShape {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  KvType kv_type = KvType::kF32;
};
void attention(std::span<const AttentionArgs> sequences, const AttentionShape& shape, int threads);

/// Peak of this machine for the instructions that `type` uses, measured now over `seconds` with
/// `threads` threads: floating-point (or integer) operations per second.
double measure_peak_ops_per_s(WeightType type, int threads, double seconds = 0.2);
/// The same for the instructions that attention's two products use over such a cache.
double measure_attention_peak_ops_per_s(KvType type, int threads, double seconds = 0.2);
/// Sequential read bandwidth from memory that is allocated like packed weights, bytes per second.
double measure_read_bytes_per_s(int threads, double seconds = 0.3);

}  // namespace kvcast

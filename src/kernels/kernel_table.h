// What one instruction set provides: single-threaded pieces of every kernel, as plain functions on
// plain structs. Threads, scratch memory and the division of work are in matmul.cpp, attention.cpp
// and elementwise.cpp, which are compiled for the baseline and know no instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace kvcast {

/// Converts rows of f32 activations to what a product reads: [rows, groups] with group_bytes each,
/// zero-padded to whole groups, row stride `out_stride_bytes` (AMX: see amx_inl.h).
struct ConvertArgs {
  const float* a = nullptr;  // [rows, k], row stride a_stride
  int64_t a_stride = 0;
  int64_t rows = 0;
  int64_t k = 0;
  int64_t groups = 0;
  std::byte* out = nullptr;
  int64_t out_stride_bytes = 0;
  float* row_scales = nullptr;  // [rows], kInt8 only
};

/// What a thread does a little at a time between the register tiles of a product: work that would
/// wait for memory finds there what was fetched while the last tile was computed.
struct Interlude {
  const std::byte* data = nullptr;  ///< what is used next, or null
  int64_t bytes = 0;                ///< how much of that lies in a row
  /// Uses the first `bytes` of data, at most all of it, and moves on.
  void (*advance)(Interlude& self, int64_t bytes) = nullptr;
};

struct MatmulKernels;

/// A block of one product: rows x the columns [column_begin, column_end) of consecutive panels.
struct MultiplyArgs {
  const MatmulKernels* kernels = nullptr;  ///< which multiply it
  const std::byte* a = nullptr;            // first row of the block, converted
  int64_t a_stride_bytes = 0;
  const float* row_scales = nullptr;  // [rows], kInt8 only
  int64_t rows = 0;
  int64_t groups = 0;                // along k, padded
  const std::byte* panel = nullptr;  // first panel
  int64_t panel_bytes = 0;
  int64_t unit_bytes = 0;  ///< PackedMatrix::unit_bytes
  int64_t panels = 1;
  /// Multiples of 16 within a panel; less than the whole panel only if panels == 1.
  int64_t column_begin = 0;
  int64_t column_end = 64;
  int64_t columns = 0;  ///< of W from the first panel's first column on; the rest is padding
  const float* bias = nullptr;  // at the first panel's first column, or null
  float* out = nullptr;         // first row, first panel's first column
  int64_t out_stride = 0;
  bool accumulate = false;
  std::byte* scratch = nullptr;     // scratch_bytes(rows, panels)
  const std::byte* next = nullptr;  ///< the panel this thread multiplies next: fetched meanwhile
  Interlude* interlude = nullptr;   ///< only where takes_interludes
};

/// The product for one weight type.
struct MatmulKernels {
  int64_t group_bytes = 4;       ///< of converted activations, per row and group
  bool f32_activations = false;  ///< convert() would be a copy
  bool bf16_activations = false;
  int64_t row_multiple = 6;         ///< rows of a register tile; row blocks start at multiples
  int64_t rows_per_conversion = 1;  ///< convert() takes this many, from a multiple of it on
  /// Beyond a converted row: rows a power of two apart would share cache sets.
  int64_t row_padding_bytes = 64;
  bool parts_of_one_row_only = false;  ///< more rows take whole panels
  int64_t panels_per_block = 1;
  int64_t largest_row_block = 1024;
  int64_t (*scratch_bytes)(int64_t rows, int64_t panels) = nullptr;
  void (*convert)(const ConvertArgs&) = nullptr;
  void (*multiply)(const MultiplyArgs&) = nullptr;
  bool takes_interludes = false;
  /// The part [group_begin, group_end) of a product with one panel, from the first group on in
  /// calls that follow each other with the same scratch; null: in one piece only. Both are
  /// multiples of PackedMatrix::kUnitGroups.
  void (*multiply_groups)(const MultiplyArgs&, int64_t group_begin, int64_t group_end) = nullptr;

  /// Rows of bf16 need no conversion, whatever their stride.
  [[nodiscard]] bool takes_bf16_rows() const {
    return bf16_activations && rows_per_conversion == 1;
  }
};

/// Attention of the query heads of one KV head, rows [row_begin, row_end) of one sequence, over
/// the key chunks [chunk_begin, chunk_end).
struct AttendArgs {
  const AttentionArgs* sequence = nullptr;
  AttentionShape shape;
  int64_t kv_head = 0;
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t chunk_begin = 0;
  int64_t chunk_end = 0;
  std::byte* scratch = nullptr;  // attend_scratch_bytes
  /// Null: the chunks are all there are; normalise and write the sequence's `out`. Otherwise the
  /// state after each chunk goes here: [chunks][queries][padded head_dim + kStateExtra].
  float* partial = nullptr;
};

struct AttentionKernels {
  bool bf16_operands = false;   ///< queries and probabilities are rounded to bf16
  bool int16_operands = false;  ///< to 16 bits
  void (*attend)(const AttendArgs&) = nullptr;
  /// As KernelTable::spin, of the products' instruction.
  double (*spin)(int64_t iterations) = nullptr;
  /// Probabilities of the last row, summed over the query heads of kv_head: [keys].
  void (*last_row)(const AttendArgs&, float* sums) = nullptr;
};

struct KernelTable {
  Isa isa = Isa::kPortable;
  MatmulKernels f32, bf16, int8;
  MatmulKernels int4_blocks, int8_blocks;  ///< read the same activations

  void (*rms_norm)(const RmsNormArgs&, int64_t row_begin, int64_t row_end) = nullptr;
  void (*head_norm_rope)(const HeadNormRopeArgs&, int64_t row_begin, int64_t row_end) = nullptr;
  void (*silu_mul)(const SiluMulArgs&, int64_t row, int64_t begin, int64_t end) = nullptr;

  size_t (*attend_scratch_bytes)(const AttentionShape&) = nullptr;
  AttentionKernels attention_f32, attention_bf16, attention_int8;  ///< by what caches hold
  /// Merges the partial states of a block of rows in chunk order and writes `out`.
  void (*merge)(const AttendArgs&) = nullptr;

  /// Runs the instruction of `type` in registers; returns how many operations that were.
  double (*spin)(WeightType type, int64_t iterations) = nullptr;
  /// Reads `bytes` (a multiple of 1024) once.
  uint64_t (*read)(const std::byte* data, size_t bytes) = nullptr;

  [[nodiscard]] const AttentionKernels& attention(KvType type) const {
    if (type == KvType::kInt8) return attention_int8;
    return type == KvType::kF32 ? attention_f32 : attention_bf16;
  }
  [[nodiscard]] const MatmulKernels& matmul(WeightType type) const {
    switch (type) {
      case WeightType::kF32:
        return f32;
      case WeightType::kBf16:
        return bf16;
      case WeightType::kInt8:
        return int8;
      case WeightType::kInt4Blocks:
        return int4_blocks;
      case WeightType::kInt8Blocks:
        break;
    }
    return int8_blocks;
  }
};

/// Activations for weights in blocks: q = round(a / scale) for every 32 elements along k, of which
/// the largest has 127. (A power of two as scale would save a multiplication where sums become
/// floats, and double the squared error.) A row with an element beyond this, or NaN, has NaN for
/// its scales.
inline constexpr float kLargestBlockActivation = 0x1p100F;
inline float block_scale(float largest) {
  const float scale = largest * (1.0F / 127.0F);
  return scale < 0x1p-100F ? 0x1p-100F : scale;
}

/// Keys per partial softmax: the same for every number of rows and threads, so that a row's result
/// does not depend on how the work was divided.
inline constexpr int64_t kChunkKeys = 512;
/// Floats of a query's state beside its mixed values: sums in lanes, maximum, padding.
inline constexpr int64_t kStateExtra = 32;
/// Query vectors (rows x heads of a group) that attend() takes at once.
inline constexpr int64_t kQueryBlock = 64;

inline int64_t attention_rows_per_block(const AttentionShape& shape) {
  const int64_t group = shape.query_heads / shape.kv_heads;
  return group >= kQueryBlock ? 1 : kQueryBlock / group;
}
inline int64_t attention_state_floats(const AttentionShape& shape) {
  return (shape.head_dim + 15) / 16 * 16 + kStateExtra;
}

/// The table in use.
const KernelTable& kernels();

const KernelTable& portable_kernels();
#if defined(__x86_64__)
const KernelTable& avx2_kernels();
const KernelTable& avxvnni_kernels();
const KernelTable& avx512_kernels();
const KernelTable& avx512bf16_kernels();
const KernelTable& amx_kernels();
#elif defined(__aarch64__)
const KernelTable& neon_kernels();
const KernelTable& neondot_kernels();
const KernelTable& neonmmla_kernels();
#endif

}  // namespace kvcast

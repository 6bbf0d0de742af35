// Products with bfmmla and smmla: two rows of activations times two columns of weights, 8 bytes
// along k each, into a square of four sums. Two group-rows of a panel, zipped, are such pairs of
// columns; activations are converted in pairs of rows: for every 8 bytes along k, those of the
// upper row, then those of the lower. A last odd row has a row of zeros below it.
//
// Every number of rows uses these instructions in the same order along k, so that here too a row
// does not depend on the rows beside it. Included after neon_inl.h.
#pragma once

#include "kernels/neon_inl.h"

namespace kvcast {
namespace {

struct MmlaBf16 {
  using Accumulator = float32x4_t;
  static Accumulator zero() { return vdupq_n_f32(0.0F); }
  static Accumulator load(const std::byte* p) {
    return Simd::load(reinterpret_cast<const float*>(p));
  }
  static void store(std::byte* p, Accumulator x) { Simd::store(reinterpret_cast<float*>(p), x); }
  static Accumulator multiply_add(Accumulator c, Simd::I rows, Simd::I columns) {
    return vbfmmlaq_f32(c, vreinterpretq_bf16_s32(rows), vreinterpretq_bf16_s32(columns));
  }
  /// Sums of one row of the block, four columns from `column` on, as f32.
  static Simd::F to_float(const MultiplyArgs&, int64_t, int64_t, Accumulator sums) { return sums; }
};

struct MmlaInt8 {
  using Accumulator = int32x4_t;
  static Accumulator zero() { return Simd::zero_int(); }
  static Accumulator load(const std::byte* p) { return Simd::load_int(p); }
  static void store(std::byte* p, Accumulator x) { Simd::store_int(p, x); }
  static Accumulator multiply_add(Accumulator c, Simd::I rows, Simd::I columns) {
    return vmmlaq_s32(c, vreinterpretq_s8_s32(rows), vreinterpretq_s8_s32(columns));
  }
  static Simd::F to_float(const MultiplyArgs& m, int64_t row, int64_t column, Accumulator sums) {
    const std::byte* const scales = m.panel + m.groups * kPanelRowBytes + column * 4;
    const Simd::F scale = Simd::load(reinterpret_cast<const float*>(scales));
    return Simd::mul(Simd::to_float(sums), Simd::mul(Simd::set(m.row_scales[row]), scale));
  }
};

/// Rows of a register tile: 24 squares of sums for 12 rows and 8 columns.
constexpr int64_t kMmlaTileRows = 12;
constexpr int kMmlaVectors = 2;         ///< of 4 columns
constexpr int kMmlaVectorsOnePair = 8;  ///< few rows read more of the panel in memory's order
constexpr int64_t kPairSumBytes = 2 * kPanelRowBytes;

/// Both rows of a pair of squares {r0 c0, r0 c1, r1 c0, r1 c1}, {r0 c2, ...}: row kRow, c0 .. c3.
template <int kRow, typename Vector>
KVCAST_INLINE Vector row_of_squares(Vector left, Vector right) {
  const auto a = (float64x2_t)left;
  const auto b = (float64x2_t)right;
  return (Vector)(kRow == 0 ? vtrn1q_f64(a, b) : vtrn2q_f64(a, b));
}

template <class Mmla, int kPairs, int kVectors>
KVCAST_INLINE void finish_pairs(const Tile& t,
                                typename Mmla::Accumulator (&acc)[kPairs][2 * kVectors]) {
  const MultiplyArgs& m = *t.args;
  KVCAST_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    const int64_t row = t.row + 2 * p;
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t column = t.column + v * Simd::kWidth;
      const auto upper = row_of_squares<0>(acc[p][2 * v], acc[p][2 * v + 1]);
      finish_vector(m, row, column, Mmla::to_float(m, row, column, upper));
      if (row + 1 == m.rows) continue;
      const auto lower = row_of_squares<1>(acc[p][2 * v], acc[p][2 * v + 1]);
      finish_vector(m, row + 1, column, Mmla::to_float(m, row + 1, column, lower));
    }
  }
}

/// t.row is even; rows beyond the last one are zeros.
template <class Mmla, int kPairs, int kVectors>
void run_pairs_tile(const Tile& t, Prefetch& prefetch) {
  const MultiplyArgs& m = *t.args;
  typename Mmla::Accumulator acc[kPairs][2 * kVectors];
  const auto partial = [&](int p, int square) {  // scratch: [pairs, 32] squares of 16 bytes
    return m.scratch + (t.row / 2 + p) * kPairSumBytes + t.column * 8 + square * 16;
  };
  KVCAST_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    KVCAST_UNROLL
    for (int s = 0; s < 2 * kVectors; ++s) {
      acc[p][s] = t.group_begin == 0 ? Mmla::zero() : Mmla::load(partial(p, s));
    }
  }
  const int64_t pair_bytes = 2 * m.a_stride_bytes;
  const std::byte* a = m.a + t.row * m.a_stride_bytes + t.group_begin * 8;
  const std::byte* b = m.panel + t.group_begin * kPanelRowBytes + t.column * 4;
  for (int64_t g = t.group_begin; g < t.group_end; g += 2) {
    if (g % kUnroll == 0) prefetch.step();
    Simd::I columns[2 * kVectors];
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Simd::I even = Simd::load_int(b + v * 16);
      const Simd::I odd = Simd::load_int(b + kPanelRowBytes + v * 16);
      columns[2 * v] = vzip1q_s32(even, odd);
      columns[2 * v + 1] = vzip2q_s32(even, odd);
    }
    KVCAST_UNROLL
    for (int p = 0; p < kPairs; ++p) {
      const Simd::I rows = Simd::load_int(a + p * pair_bytes);
      KVCAST_UNROLL
      for (int s = 0; s < 2 * kVectors; ++s) {
        acc[p][s] = Mmla::multiply_add(acc[p][s], rows, columns[s]);
      }
    }
    a += 16;
    b += 2 * kPanelRowBytes;
  }
  if (t.group_end == m.groups) return finish_pairs<Mmla, kPairs, kVectors>(t, acc);
  KVCAST_UNROLL
  for (int p = 0; p < kPairs; ++p) {
    KVCAST_UNROLL
    for (int s = 0; s < 2 * kVectors; ++s) Mmla::store(partial(p, s), acc[p][s]);
  }
}

template <class Mmla, int kPairs>
void run_pairs(Tile t, Prefetch& prefetch) {
  constexpr int kVectors = kPairs == 1 ? kMmlaVectorsOnePair : kMmlaVectors;
  for (; t.column + kVectors * Simd::kWidth <= t.args->column_end;
       t.column += kVectors * Simd::kWidth) {
    run_pairs_tile<Mmla, kPairs, kVectors>(t, prefetch);
  }
  for (; t.column < t.args->column_end; t.column += kMmlaVectors * Simd::kWidth) {
    run_pairs_tile<Mmla, kPairs, kMmlaVectors>(t, prefetch);
  }
}

template <class Mmla>
void multiply_mmla(const MultiplyArgs& m) {
  const int64_t pairs = (m.rows + 1) / 2;
  const int64_t tiles = (2 * pairs + kMmlaTileRows - 1) / kMmlaTileRows;
  const int64_t strip = (pairs == 1 ? kMmlaVectorsOnePair : kMmlaVectors) * Simd::kWidth;
  const int64_t passes = tiles * ((m.column_end - m.column_begin + strip - 1) / strip);
  for (int64_t g = 0; g < m.groups; g += kGroupBlock) {
    const int64_t end = g + kGroupBlock < m.groups ? g + kGroupBlock : m.groups;
    const std::byte* const next = end < m.groups ? m.panel + end * kPanelRowBytes : m.next;
    const int64_t after = end < m.groups ? m.groups - end : m.groups;
    Prefetch prefetch =
        Prefetch::plan(next, (after < kGroupBlock ? after : kGroupBlock) * kPanelRowBytes,
                       passes * ((end - g) / kUnroll));
    for (int64_t tile = 0; tile < tiles; ++tile) {  // as equal in height as they can be
      const int64_t pair = pairs * tile / tiles;
      const Tile t{&m, 2 * pair, m.column_begin, g, end};
      switch (pairs * (tile + 1) / tiles - pair) {
        case 1:
          run_pairs<Mmla, 1>(t, prefetch);
          break;
        case 2:
          run_pairs<Mmla, 2>(t, prefetch);
          break;
        case 3:
          run_pairs<Mmla, 3>(t, prefetch);
          break;
        case 4:
          run_pairs<Mmla, 4>(t, prefetch);
          break;
        case 5:
          run_pairs<Mmla, 5>(t, prefetch);
          break;
        default:
          run_pairs<Mmla, 6>(t, prefetch);
      }
    }
  }
}

int64_t scratch_bytes_mmla(int64_t rows, int64_t) { return (rows + 1) / 2 * kPairSumBytes; }

/// Zeros below a last odd row.
void clear_lower_row(const ConvertArgs& c) {
  if (c.rows == 2) return;
  for (int64_t i = 0; i < c.groups * 4; i += 8)
    vst1_u8(reinterpret_cast<uint8_t*>(c.out + 2 * i + 8), vdup_n_u8(0));
}

void convert_bf16_pairs(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    std::byte* const out = c.out + 8 * r;
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * 2, [&](int64_t i, Simd::F x) {
      vst1_bf16(reinterpret_cast<bfloat16_t*>(out + 4 * i), vcvt_bf16_f32(x));
    });
  }
  clear_lower_row(c);
}

void convert_int8_pairs(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    ConvertArgs one = c;
    one.a = c.a + r * c.a_stride;
    one.rows = 1;
    one.row_scales = c.row_scales + r;
    one.out = c.out + 8 * r;
    convert_int8(one, [](std::byte* out, int64_t i, Simd::I q) {
      Simd::store_bytes(out + i / 8 * 16 + i % 8, q);
    });
  }
  clear_lower_row(c);
}

/// Independent squares of sums; `kElements` products a sum.
template <class Mmla>
double spin_mmla(int64_t iterations, double elements) {
  constexpr int kSquares = 24;
  typename Mmla::Accumulator acc[kSquares];
  Simd::I a = Simd::zero_int();
  Simd::I b = Simd::zero_int();
  KVCAST_UNROLL
  for (auto& square : acc) {
    square = Mmla::zero();
    hide(square);
  }
  for (int64_t n = 0; n < iterations; ++n) {
    hide(a);
    hide(b);
    KVCAST_UNROLL
    for (auto& square : acc) square = Mmla::multiply_add(square, a, b);
  }
  for (auto& square : acc) hide(square);
  return static_cast<double>(iterations) * kSquares * 4.0 * elements * 2.0;
}

double spin_neonmmla(WeightType type, int64_t iterations) {
  if (type == WeightType::kBf16) return spin_mmla<MmlaBf16>(iterations, 4.0);
  if (is_integer(type)) return spin_mmla<MmlaInt8>(iterations, 8.0);
  return spin_neon(type, iterations);
}

KernelTable neonmmla_table() {
  KernelTable t = neon_table(Isa::kNeonMmla);
  for (MatmulKernels* m : {&t.bf16, &t.int8}) {
    m->f32_activations = false;
    m->group_bytes = 4;
    m->row_multiple = kMmlaTileRows;
    m->rows_per_conversion = 2;
    m->scratch_bytes = scratch_bytes_mmla;
  }
  t.bf16.bf16_activations = true;
  t.bf16.convert = convert_bf16_pairs;
  set_whole_product(t.bf16, multiply_mmla<MmlaBf16>);
  t.int8.convert = convert_int8_pairs;
  set_whole_product(t.int8, multiply_mmla<MmlaInt8>);
  t.spin = spin_neonmmla;
  return t;
}

}  // namespace
}  // namespace kvcast

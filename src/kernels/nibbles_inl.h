// int8 products with vpmaddubsw (AVX2, AVX-512 without VNNI), which adds pairs of products of
// unsigned and signed bytes in 16 bits. Of half a byte of weights, two products are within
// 15 * 127 * 2 = 3,810, and 16 bits hold the sum of the eight groups of a block (30,480): exact, at
// twice the rate of 16-bit multiply-adds for a whole byte and four times for 4-bit codes.
// Included after the file's Simd.
#pragma once

#include "kernels/gemm_blocks_inl.h"
#include "kernels/table_inl.h"

namespace kvcast {
namespace {

/// A block's activations end with their sum, in 16 bits, and their scale.
struct NibbleBlocks {
  static constexpr int kSteps = 1;
  static void store_header(std::byte* header, float scale, int32_t sum) {
    const int32_t low_half = sum & 0xffff;
    __builtin_memcpy(header, &low_half, 4);
    __builtin_memcpy(header + 4, &scale, 4);
  }
  /// As pairs (sum, 0).
  static Simd::I sum_pairs(const std::byte* header) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(header));
  }
  static Simd::I begin(const std::byte*) { return Simd::zero_int(); }
  static Simd::F end(Simd::I sum, const std::byte* header) {
    return Simd::mul(Simd::to_float(sum), Simd::set(*reinterpret_cast<const float*>(header + 4)));
  }
};

Simd::I low_halves_of_bytes(Simd::I x) { return Simd::and_int(x, Simd::set_int(0x0f0f0f0f)); }
Simd::I high_halves_of_bytes(Simd::I x) { return low_halves_of_bytes(Simd::shift_right_int(x, 4)); }
Simd::I pairs_of(int16_t x) {
  return Simd::set_int(static_cast<int32_t>(static_cast<uint16_t>(x) * 0x10001U));
}
KVCAST_INLINE Simd::I group_of_row(const BlockOperands& o, int row, int64_t group) {
  return Simd::set_int(*reinterpret_cast<const int32_t*>(o.a + row * o.a_stride + group * 4));
}

struct Int4Nibbles : ScaledByBlock<NibbleBlocks, kInt4Steps> {
  static constexpr int64_t kBytes = kInt4BlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    Simd::I sums[kRows][kVectors];  // of codes times activations, in 16 bits
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Simd::zero_int();
    }
    KVCAST_UNROLL
    for (int64_t pair = 0; pair < kBlockGroups / 2; ++pair) {
      KVCAST_UNROLL
      for (int half = 0; half < 2; ++half) {
        Simd::I w[kVectors];
        KVCAST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const Simd::I both =
              Simd::load_int(o.block + pair * kPanelRowBytes + (o.column + v * Simd::kWidth) * 4);
          w[v] = half == 0 ? low_halves_of_bytes(both) : high_halves_of_bytes(both);
        }
        KVCAST_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const Simd::I a = group_of_row(o, r, 2 * pair + half);
          KVCAST_UNROLL
          for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = Simd::add_halves(sums[r][v], Simd::multiply_bytes(w[v], a));
          }
        }
      }
    }
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Simd::I zero =
          Simd::sub_int(Simd::widen_bytes(o.block + kInt4Zeros + o.column + v * Simd::kWidth),
                        Simd::set_int(128));
      KVCAST_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Simd::I row_sum = NibbleBlocks::sum_pairs(o.headers + r * o.a_stride);
        acc[r][v] = Simd::add_int(Simd::multiply_pairs(sums[r][v], pairs_of(kInt4CodeStep)),
                                  Simd::multiply_pairs(zero, row_sum));
      }
    }
  }
};

/// acc[kFirst ...] = eight groups of bytes, made unsigned by `to_unsigned`, times those of kCount
/// rows of activations.
template <int kFirst, int kCount, int kRows, int kVectors, typename ToUnsigned>
KVCAST_INLINE void multiply_rows_in_halves(const BlockOperands& o, const ToUnsigned& to_unsigned,
                                           Simd::I (&acc)[kRows][kVectors]) {
  Simd::I low[kCount][kVectors];
  Simd::I high[kCount][kVectors];
  KVCAST_UNROLL
  for (int r = 0; r < kCount; ++r) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) low[r][v] = high[r][v] = Simd::zero_int();
  }
  KVCAST_UNROLL
  for (int64_t g = 0; g < kBlockGroups; ++g) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Simd::I w = to_unsigned(
          Simd::load_int(o.block + g * kPanelRowBytes + (o.column + v * Simd::kWidth) * 4));
      const Simd::I w_low = low_halves_of_bytes(w);
      const Simd::I w_high = high_halves_of_bytes(w);
      KVCAST_UNROLL
      for (int r = 0; r < kCount; ++r) {
        const Simd::I a = group_of_row(o, kFirst + r, g);
        low[r][v] = Simd::add_halves(low[r][v], Simd::multiply_bytes(w_low, a));
        high[r][v] = Simd::add_halves(high[r][v], Simd::multiply_bytes(w_high, a));
      }
    }
  }
  KVCAST_UNROLL
  for (int r = 0; r < kCount; ++r) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      acc[kFirst + r][v] = Simd::add_int(Simd::multiply_pairs(high[r][v], pairs_of(16)),
                                         Simd::multiply_pairs(low[r][v], pairs_of(1)));
    }
  }
}

/// Of all rows: each has two sums, so half a register tile's rows at a time.
template <int kRows, int kVectors, typename ToUnsigned>
KVCAST_INLINE void multiply_bytes_in_halves(const BlockOperands& o, const ToUnsigned& to_unsigned,
                                            Simd::I (&acc)[kRows][kVectors]) {
  constexpr int kMost = Simd::kTileRows / 2;
  if constexpr (kRows <= kMost) {
    multiply_rows_in_halves<0, kRows>(o, to_unsigned, acc);
  } else {
    multiply_rows_in_halves<0, kMost>(o, to_unsigned, acc);
    multiply_rows_in_halves<kMost, kRows - kMost>(o, to_unsigned, acc);
  }
}

struct Int8Nibbles : ScaledByBlock<NibbleBlocks, kInt8Steps> {
  static constexpr int64_t kBytes = kInt8BlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    multiply_bytes_in_halves(
        o, [](Simd::I u) { return u; }, acc);
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Simd::I offset =
          Simd::multiply_pairs(NibbleBlocks::sum_pairs(o.headers + r * o.a_stride), pairs_of(-128));
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Simd::add_int(acc[r][v], offset);
    }
  }
};

/// int8 with a scale for each column: the same in 32-bit sums over all of k. A row of activations
/// ends with its sum.
struct ColumnNibbles {
  static constexpr int64_t kGroupBytes = 4;
  static constexpr int64_t kBytes = kBlockGroups * kPanelRowBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void begin(const BlockOperands&, Simd::I (&)[kRows][kVectors]) {}
  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    const Simd::I offset = Simd::set_int(static_cast<int32_t>(0x80808080));
    multiply_bytes_in_halves(
        o, [&](Simd::I w) { return Simd::xor_int(w, offset); }, acc);
  }
  template <int kRows, int kVectors>
  static KVCAST_INLINE void add_to_sums(const BlockOperands&, const Simd::I (&acc)[kRows][kVectors],
                                        std::byte* sums) {
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        std::byte* const sum = sums + (r * 64 + v * Simd::kWidth) * 4;
        Simd::store_int(sum, Simd::add_int(Simd::load_int(sum), acc[r][v]));
      }
    }
  }
  static KVCAST_INLINE Simd::F finish(const MultiplyArgs& m, int64_t row, int64_t column,
                                      const std::byte* sums) {
    const auto row_sum =
        *reinterpret_cast<const uint32_t*>(m.a + row * m.a_stride_bytes + m.groups * kGroupBytes);
    const std::byte* const scales = m.panel + m.groups * kPanelRowBytes + column * 4;
    const Simd::F scale = Simd::load(reinterpret_cast<const float*>(scales));
    const Simd::I sum =
        Simd::sub_int(Simd::load_int(sums), Simd::set_int(static_cast<int32_t>(row_sum * 128U)));
    return Simd::mul(Simd::to_float(sum), Simd::mul(Simd::set(m.row_scales[row]), scale));
  }
};

void convert_int8_with_sum(const ConvertArgs& c) {
  convert_int8(c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_bytes(out + i, q); });
  for (int64_t r = 0; r < c.rows; ++r) {
    std::byte* const row = c.out + r * c.out_stride_bytes;
    Simd::I sums = Simd::zero_int();
    for (int64_t i = 0; i < c.groups * 4; i += Simd::kWidth * 4) {
      const Simd::I pairs =
          Simd::multiply_bytes(Simd::set_int(0x01010101), Simd::load_int(row + i));
      sums = Simd::add_int(sums, Simd::multiply_pairs(pairs, pairs_of(1)));
    }
    int32_t lanes[Simd::kWidth];
    Simd::store_int(reinterpret_cast<std::byte*>(lanes), sums);
    int32_t sum = 0;
    for (const int32_t lane : lanes) sum += lane;
    __builtin_memcpy(row + c.groups * 4, &sum, 4);
  }
}

void convert_nibble_blocks(const ConvertArgs& c) {
  convert_to_blocks<NibbleBlocks>(
      c, [](std::byte* out, int64_t i, Simd::I q) { Simd::store_bytes(out + i, q); });
}

/// Half bytes of weights, four a lane.
struct DotNibbles : DotInt8<0> {
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return Simd::add_halves(c, Simd::multiply_bytes(b, a));
  }
};

double spin_nibbles(WeightType type, int64_t iterations) {
  if (type == WeightType::kInt4Blocks) return spin_dot<DotNibbles>(iterations, 8.0);
  if (is_integer(type)) return spin_dot<DotNibbles>(iterations, 4.0);  // a byte is two halves
  return spin_dot<DotF32>(iterations, 2.0);  // bf16 weights are widened and multiplied as f32
}

KernelTable nibbles_table(Isa isa) {
  KernelTable t = base_table(isa);
  set_block_product<ColumnNibbles>(t.int8, convert_int8_with_sum);
  set_block_product<Int4Nibbles>(t.int4_blocks, convert_nibble_blocks);
  set_block_product<Int8Nibbles>(t.int8_blocks, convert_nibble_blocks);
  t.spin = spin_nibbles;
  return t;
}

}  // namespace
}  // namespace kvcast

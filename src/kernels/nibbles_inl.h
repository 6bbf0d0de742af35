// int8 products with vpmaddubsw (AVX2, AVX-512 without VNNI), which adds pairs of products of
// unsigned and signed bytes in 16 bits. Of half a byte of weights, two products are within
// 15 * 127 * 2 = 3,810, and 16 bits hold the sum of the eight groups of a block (30,480): exact,
// and at up to four times the rate of 16-bit multiply-adds for 4-bit codes.
// Included after the file's Simd.
#pragma once

#include "kernels/int8_widened_inl.h"

namespace kvcast {
namespace {

struct NibbleBlocks {
  static constexpr int kSteps = 1;
  static constexpr bool kUnsignedBytes = true;
};

Simd::I pairs_of(int16_t x) {
  return Simd::set_int(static_cast<int32_t>(static_cast<uint16_t>(x) * 0x10001U));
}
KVCAST_INLINE Simd::I group_of_row(const BlockOperands& o, int row, int64_t group) {
  return Simd::set_int(*reinterpret_cast<const int32_t*>(o.a + row * o.a_stride + group * 4));
}

struct Int4Nibbles : ScaledByBlock<NibbleBlocks, kInt4Steps, kInt4Minimums> {
  static constexpr int64_t kBytes = kInt4BlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr int kRowsInWholeTiles = Simd::kTileRows;
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
    for (int r = 0; r < kRows; ++r) {
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = Simd::multiply_pairs(sums[r][v], pairs_of(1));
      }
    }
  }
};

/// acc[kFirst ...] = eight groups of bytes times those of kCount rows of activations.
template <int kFirst, int kCount, int kRows, int kVectors>
KVCAST_INLINE void multiply_rows_in_halves(const BlockOperands& o,
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
      const Simd::I w =
          Simd::load_int(o.block + g * kPanelRowBytes + (o.column + v * Simd::kWidth) * 4);
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
template <int kRows, int kVectors>
KVCAST_INLINE void multiply_bytes_in_halves(const BlockOperands& o,
                                            Simd::I (&acc)[kRows][kVectors]) {
  constexpr int kMost = Simd::kTileRows / 2;
  if constexpr (kRows <= kMost) {
    multiply_rows_in_halves<0, kRows>(o, acc);
  } else {
    multiply_rows_in_halves<0, kMost>(o, acc);
    multiply_rows_in_halves<kMost, kRows - kMost>(o, acc);
  }
}

struct Int8Nibbles : ScaledByBlock<NibbleBlocks, kInt8Steps, 0> {
  static constexpr int64_t kBytes = kInt8BlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr int kRowsInWholeTiles = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    multiply_bytes_in_halves(o, acc);
  }
};

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
  if (is_blocks(type)) return spin_dot<DotNibbles>(iterations, 4.0);  // a byte is two halves
  return spin_widened(type, iterations);
}

/// int8 without blocks stays with 16-bit multiply-adds, which are no slower for whole bytes.
KernelTable nibbles_table(Isa isa) {
  KernelTable t = widened_table(isa);
  set_block_product<Int4Nibbles>(t.int4_blocks, convert_nibble_blocks);
  set_block_product<Int8Nibbles>(t.int8_blocks, convert_nibble_blocks);
  t.spin = spin_nibbles;
  return t;
}

}  // namespace
}  // namespace kvcast

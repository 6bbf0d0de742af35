// int8 products with vpmaddubsw (AVX2, AVX-512 without VNNI), which adds pairs of products of
// unsigned and signed bytes in 16 bits. Of half a byte of weights, two products are within
// 15 * 127 * 2 = 3,810, and 16 bits hold the sum of the eight groups of a block (30,480): exact,
// and at up to four times the rate of 16-bit multiply-adds for 4-bit codes.
// Included after the file's Simd.
#pragma once

#include "kernels/attention_int8_inl.h"
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
/// The same address, as a stranger to the compiler: what was read there is read again instead of
/// being kept in one of too few registers, or spilled.
KVCAST_INLINE const std::byte* read_again(const std::byte* address) {
  __asm__("" : "+r"(address));
  return address;
}
KVCAST_INLINE Simd::I group_of_row(const BlockOperands& o, int row, int64_t group) {
  return Simd::set_int(*reinterpret_cast<const int32_t*>(o.a + row * o.a_stride + group * 4));
}

struct Int4Nibbles : ScaledByBlock<NibbleBlocks, kInt4Steps, kInt4Minimums> {
  static constexpr int64_t kBytes = kInt4BlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr int kRowsInWholeTiles = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;
  using Many = Int4Nibbles;

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
        const std::byte* const codes = o.block + pair * kPanelRowBytes + o.column * 4;
        Simd::I w[kVectors];
        KVCAST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const Simd::I both = Simd::load_int(codes + v * Simd::kWidth * 4);
          w[v] = half == 0 ? low_halves_of_bytes(both) : high_halves_of_bytes(both);
        }
        KVCAST_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const Simd::I a = group_of_row(o, r, 2 * pair + half);
          KVCAST_UNROLL
          for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = Simd::add_products_of_bytes(sums[r][v], w[v], a);
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

/// Eight groups of bytes times activations, a vector of features at a time: each row has two sums.
template <int kRows, int kVectors>
KVCAST_INLINE void multiply_bytes_in_halves(BlockOperands o, Simd::I (&acc)[kRows][kVectors]) {
  KVCAST_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    o.a = read_again(o.a);
    Simd::I low[kRows];
    Simd::I high[kRows];
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) low[r] = high[r] = Simd::zero_int();
    KVCAST_UNROLL
    for (int64_t g = 0; g < kBlockGroups; ++g) {
      const Simd::I w =
          Simd::load_int(o.block + g * kPanelRowBytes + (o.column + v * Simd::kWidth) * 4);
      const Simd::I w_low = low_halves_of_bytes(w);
      const Simd::I w_high = high_halves_of_bytes(w);
      KVCAST_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Simd::I a = group_of_row(o, r, g);
        low[r] = Simd::add_products_of_bytes(low[r], w_low, a);
        high[r] = Simd::add_products_of_bytes(high[r], w_high, a);
      }
    }
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      acc[r][v] = Simd::add_products_of_pairs(Simd::multiply_pairs(low[r], pairs_of(1)), high[r],
                                              pairs_of(16));
    }
  }
}

struct Int8Nibbles : ScaledByBlock<NibbleBlocks, kInt8Steps, 0> {
  static constexpr int64_t kBytes = kInt8BlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr int kRowsInWholeTiles = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;
  using Many = Int8Nibbles;

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
    return Simd::add_products_of_bytes(c, b, a);
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
  t.attention_int8 = attention_kernels<CacheInt8<DotPairs>>();
  t.spin = spin_nibbles;
  return t;
}

}  // namespace
}  // namespace kvcast

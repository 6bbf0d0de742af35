// Weights in blocks of 32 along k in AMX tiles: a product of tiles is the exact integer sum of one
// block for up to 16 rows and 16 features, which vectors scale and add as they do everywhere (the
// same operations on an element in the same order as in gemm_blocks_inl.h: its bits do not depend
// on which of the two computed it). Few rows wait for memory and stay with vectors.
// Included after avx512bf16_inl.h.
#pragma once

#include "kernels/amx_tiles_inl.h"
#include "kernels/gemm_blocks_inl.h"

namespace kvcast {
namespace {

/// Tiles 0 to 3: sums of a block each; 4, 5: A; 6, 7: B.
void configure_blocks(int64_t rows) {
  TileConfig config;
  for (const int i : {0, 1, 2, 3, 4, 5}) config.rows[i] = static_cast<uint8_t>(rows);
  for (const int i : {6, 7}) config.rows[i] = kBlockGroups;
  for (const int i : {0, 1, 2, 3, 6, 7}) config.bytes_per_row[i] = kLine;
  for (const int i : {4, 5}) config.bytes_per_row[i] = kWeightBlock;
  load_config(config);
}

/// Many rows of a panel's blocks whose codes are bytes, `Codes` saying how sums are scaled.
template <class Codes>
struct BlocksInTiles : Codes {
  static constexpr int kRowsPerTile = kTileSide;
  static constexpr int kRowsAtOnce = kRowsPerTile;

  template <int kRows>
  static void run_rows(const BlockTile& t, Prefetch& prefetch) {
    configure_blocks(kRows);
    for (int64_t column = t.args->column_begin; column < t.args->column_end;
         column += Simd::kWidth) {
      run_columns<kRows>(t, column, prefetch);
    }
    _tile_release();
  }

 private:
  /// Blocks that are on their way from a product through memory into vectors. That takes as long
  /// as the scaling of two or three.
  static constexpr int kOnTheWay = 4;
  static constexpr int kAhead = 2;

  /// Sums of blocks, [rows, 16] int32 each, where they go from tiles to vectors.
  struct alignas(kLine) Products {
    std::byte of_block[kOnTheWay][kTileSide * kLine];
  };

  template <int kTile>
  static KVCAST_INLINE void multiply(const BlockOperands& o, int64_t block, Products& out) {
    const std::byte* const a = o.a + block * kWeightBlock;
    const std::byte* const codes = o.block + block * Codes::kBytes + o.column * 4;
    std::byte* const to = out.of_block[kTile];
    if constexpr (kTile == 0) {
      _tile_zero(0);
      _tile_loadd(4, a, o.a_stride);
      _tile_loadd(6, codes, kPanelRowBytes);
      _tile_dpbsud(0, 4, 6);
      _tile_stored(0, to, kLine);
    } else if constexpr (kTile == 1) {
      _tile_zero(1);
      _tile_loadd(5, a, o.a_stride);
      _tile_loadd(7, codes, kPanelRowBytes);
      _tile_dpbsud(1, 5, 7);
      _tile_stored(1, to, kLine);
    } else if constexpr (kTile == 2) {
      _tile_zero(2);
      _tile_loadd(4, a, o.a_stride);
      _tile_loadd(6, codes, kPanelRowBytes);
      _tile_dpbsud(2, 4, 6);
      _tile_stored(2, to, kLine);
    } else {
      _tile_zero(3);
      _tile_loadd(5, a, o.a_stride);
      _tile_loadd(7, codes, kPanelRowBytes);
      _tile_dpbsud(3, 5, 7);
      _tile_stored(3, to, kLine);
    }
  }

  template <int kRows>
  static KVCAST_INLINE void scale(const BlockOperands& o, int64_t block, const std::byte* products,
                                  Simd::F (&acc)[kRows]) {
    const TileRows<kRows> headers(o.headers + block * kBlockHeaderBytes, o.a_stride);
    const auto scales = Codes::scales_of(o.block + block * Codes::kBytes, o.column);
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      acc[r] = Codes::add_scaled(Simd::load_int(products + r * kLine), headers[r], scales, acc[r]);
    }
  }

  template <int kRows>
  static void run_columns(const BlockTile& t, int64_t column, Prefetch& prefetch) {
    const MultiplyArgs& m = *t.args;
    const std::byte* const a = m.a + t.row * m.a_stride_bytes;
    const BlockOperands o{
        .a = a + t.block_begin * kBlockGroups * Codes::kGroupBytes,
        .headers = a + m.groups * Codes::kGroupBytes + t.block_begin * kBlockHeaderBytes,
        .a_stride = m.a_stride_bytes,
        .block = t.blocks,
        .column = column};
    auto* const sums = reinterpret_cast<float*>(m.scratch) + t.row * 64 + column;
    Simd::F acc[kRows];
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      acc[r] = t.block_begin == 0 ? Simd::zero() : Simd::load(sums + r * 64);
    }
    const bool last = t.block_end * kBlockGroups == m.groups;
    if (last) {  // lines far apart, which are there when the sums are
      for (int r = 0; r < kRows; ++r) {
        __builtin_prefetch(m.out + (t.row + r) * m.out_stride + column, 1, 3);
      }
    }
    Products products;
    const int64_t blocks = t.block_end - t.block_begin;
    __asm__ volatile("" ::: "memory");  // what tiles load has been stored
    const auto turn = [&]<int kTile>(int64_t block) KVCAST_LAMBDA_INLINE {
      constexpr int kNext = (kTile + kAhead) % kOnTheWay;
      if (block + kAhead < blocks) multiply<kNext>(o, block + kAhead, products);
      if (block < 0 || block >= blocks) return;
      if (column == 0) prefetch.step();
      scale<kRows>(o, block, products.of_block[kTile], acc);
    };
    turn.template operator()<kOnTheWay - 2>(-2);
    turn.template operator()<kOnTheWay - 1>(-1);
    for (int64_t block = 0; block < blocks; block += kOnTheWay) {
      turn.template operator()<0>(block);
      turn.template operator()<1>(block + 1);
      turn.template operator()<2>(block + 2);
      turn.template operator()<3>(block + 3);
    }
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (last) {
        finish_vector(m, t.row + r, column, acc[r]);
      } else {
        Simd::store(sums + r * 64, acc[r]);
      }
    }
  }
};

template <class Dot>
struct Int4CodesInTiles : Int4Codes<Dot> {
  using Many = BlocksInTiles<UnpackedInt4Codes<Dot>>;
};
template <class Dot>
struct Int8CodesInTiles : Int8Codes<Dot> {
  using Many = BlocksInTiles<Int8Codes<Dot>>;
};

void set_block_products_in_tiles(KernelTable& t) {
  set_block_product<Int4CodesInTiles<DotBlocksVnni>>(t.int4_blocks, convert_blocks_vnni);
  set_block_product<Int8CodesInTiles<DotBlocksVnni>>(t.int8_blocks, convert_blocks_vnni);
}

}  // namespace
}  // namespace kvcast

// Products with weights in blocks of 32 along k (weight_blocks.h), in register tiles.
//
// A block's sum of products is an integer; times the activations' scale and the weights' step, and
// with a minimum's part, it is added to the element's f32 sum, block after block from first to
// last, whatever the number of rows, the tile or the division along k: results do not depend on how
// rows are batched. The f32 sums stay in memory, where a block passes once; the integer ones in
// registers. Few rows unpack 4-bit codes in registers. For more, a piece of the panel is
// unpacked to bytes in the second-level cache, and all row tiles read it there. Included after the
// file's Simd and dot_inl.h.
#pragma once

#include "kernels/blocks_convert_inl.h"
#include "kernels/gemm_inl.h"

namespace kvcast {
namespace {

/// Blocks along k in a piece: unpacked, some 2 KiB each, in the second-level cache. Long, since
/// rows of activations are fetched well only in long runs (12 blocks at a time: a third of the rate
/// lost).
constexpr int64_t kBlocksPerPiece = Simd::kWidth == 16 ? 96 : 16;
/// Bytes ahead of the reader that few rows fetch: a block of work is long beside the way from
/// memory, but lines come in bursts of a block. Half of it costs 10 rows a tenth of their speed.
constexpr int64_t kBlocksReadAhead = 6144;
/// Most rows for which 4-bit codes are unpacked in registers, and most with a whole tile's columns.
constexpr int kRowsUnpackedInRegisters = Simd::kWidth == 16 ? kTallRows : 1;
constexpr int kRowsUnpackedInWholeTiles = 4;

/// A Dot of signed bytes for blocks: bytes of kInt8Blocks less 128 times the codes of activations.
template <class Dot>
struct SignedBlocks : Dot {
  static constexpr bool kUnsignedBytes = false;
  /// Makes bytes of kInt8Blocks what the Dot takes.
  static Simd::I from_unsigned(Simd::I u) {
    return Simd::xor_int(u, Simd::set_int(static_cast<int32_t>(0x80808080)));
  }
};

/// Rows [row, row + kRows) times the columns [begin, end) of consecutive blocks of a panel.
struct BlockTile {
  const MultiplyArgs* args;
  int64_t row;
  const std::byte* blocks;  ///< the panel's, or unpacked: the first one
  int64_t block_begin, block_end;
};

/// A block of a strip of columns, and of the rows that meet it.
struct BlockOperands {
  const std::byte* a;        ///< the first row's codes in the block
  const std::byte* headers;  ///< the first row's header of the block
  int64_t a_stride;
  const std::byte* block;  ///< of weights
  int64_t column;          ///< the strip's first
};

/// A block's steps or minimums as packed, and unpacked.
struct HalfFloats {
  static constexpr int64_t kBytes = 2;
  static KVCAST_INLINE Simd::F load(const std::byte* p) { return Simd::load_f16(p); }
};
struct Floats {
  static constexpr int64_t kBytes = 4;
  static KVCAST_INLINE Simd::F load(const std::byte* p) {
    return Simd::load(reinterpret_cast<const float*>(p));
  }
};

/// What becomes of a block's integer sums: f32 ones, [rows, 64] in memory. kBlockMinimums is 0
/// where there are none.
template <class Dot, int64_t kBlockSteps, int64_t kBlockMinimums, class Steps = HalfFloats>
struct ScaledByBlock {
  static constexpr int64_t kGroupBytes = 4 * Dot::kSteps;
  static constexpr int kRowsPerTile = Simd::kTileRows;  ///< of many rows
  static constexpr bool kMinimum = kBlockMinimums != 0;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void begin(Simd::I (&acc)[kRows][kVectors]) {
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Simd::zero_int();
    }
  }
  struct Scales {  // of a vector of features
    Simd::F step, minimum;
  };
  static KVCAST_INLINE Scales scales_of(const std::byte* block, int64_t column) {
    const std::byte* const steps = block + kBlockSteps + column * Steps::kBytes;
    Scales s{Steps::load(steps), Simd::zero()};
    if constexpr (kMinimum) s.minimum = Steps::load(steps + kBlockMinimums - kBlockSteps);
    return s;
  }
  /// `sum` and what a block whose products are `products` brings a row.
  static KVCAST_INLINE Simd::F add_scaled(Simd::I products, const std::byte* row_header,
                                          const Scales& scales, Simd::F sum) {
    const auto* const header = reinterpret_cast<const float*>(row_header);
    Simd::F x = Simd::to_float(products);
    if constexpr (Dot::kUnsignedBytes && !kMinimum) {
      x = Simd::fma(x, Simd::set(header[0]), Simd::set(header[1] * -128.0F));
    } else {
      x = Simd::mul(x, Simd::set(header[0]));
    }
    sum = Simd::fma(x, scales.step, sum);
    if constexpr (kMinimum) sum = Simd::fma(scales.minimum, Simd::set(header[1]), sum);
    return sum;
  }
  template <int kRows, int kVectors>
  static KVCAST_INLINE void add_to_sums(const BlockOperands& o,
                                        const Simd::I (&acc)[kRows][kVectors], std::byte* sums) {
    const TileRows<kRows> headers(o.headers, o.a_stride);
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Scales scales = scales_of(o.block, o.column + v * Simd::kWidth);
      KVCAST_UNROLL
      for (int r = 0; r < kRows; ++r) {
        auto* const out = reinterpret_cast<float*>(sums) + r * 64 + v * Simd::kWidth;
        Simd::store(out, add_scaled(acc[r][v], headers[r], scales, Simd::load(out)));
      }
    }
  }
};

/// Groups of a block whose codes are bytes.
template <class Dot, bool kInt8, int kRows, int kVectors>
KVCAST_INLINE void multiply_add_bytes(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
  const TileRows<kRows> rows(o.a, o.a_stride);
  KVCAST_UNROLL
  for (int64_t g = 0; g < kBlockGroups; ++g) {
    const std::byte* const codes = o.block + g * kPanelRowBytes + o.column * 4;
    Simd::I w[kVectors];
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      w[v] = Simd::load_int(codes + v * Simd::kWidth * 4);
      if constexpr (kInt8) w[v] = Dot::from_unsigned(w[v]);
    }
    multiply_add_weights<Dot>(rows, g * 4 * Dot::kSteps, w, acc);
  }
}

template <class Dot>
struct Int8Codes : ScaledByBlock<Dot, kInt8Steps, 0> {
  static constexpr int64_t kBytes = kInt8BlockBytes;
  static constexpr int kRowsAtOnce = kTallRows;
  static constexpr int kRowsInWholeTiles = Simd::kTileRows;
  static constexpr bool kUnpackOnce = false;  ///< codes become those of Many for many rows
  using Many = Int8Codes;                     ///< what takes many rows, a piece at a time

  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    multiply_add_bytes<Dot, true>(o, acc);
  }
};

/// 4-bit codes as bytes, with their block's steps and minimums in f32: read by every row tile.
inline constexpr int64_t kUnpackedMinimums = kInt8Steps + PackedMatrix::kPanelColumns * 4;
inline constexpr int64_t kUnpackedBlockBytes = kUnpackedMinimums + PackedMatrix::kPanelColumns * 4;

template <class Dot>
struct UnpackedInt4Codes : ScaledByBlock<Dot, kInt8Steps, kUnpackedMinimums, Floats> {
  static constexpr int64_t kBytes = kUnpackedBlockBytes;
  static constexpr int kRowsAtOnce = Simd::kTileRows;
  static constexpr int kRowsInWholeTiles = Simd::kTileRows;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    multiply_add_bytes<Dot, false>(o, acc);
  }
};

/// Codes of an even and the odd group that lie in the same bytes.
KVCAST_INLINE Simd::I low_halves_of_bytes(Simd::I x) {
  return Simd::and_int(x, Simd::set_int(0x0f0f0f0f));
}
KVCAST_INLINE Simd::I high_halves_of_bytes(Simd::I x) {
  return low_halves_of_bytes(Simd::shift_right_int(x, 4));
}

template <class Dot>
struct Int4Codes : ScaledByBlock<Dot, kInt4Steps, kInt4Minimums> {
  static constexpr int64_t kBytes = kInt4BlockBytes;
  static constexpr int kRowsAtOnce = kRowsUnpackedInRegisters;
  static constexpr int kRowsInWholeTiles = kRowsUnpackedInWholeTiles;
  static constexpr bool kUnpackOnce = true;
  using Many = UnpackedInt4Codes<Dot>;

  template <int kRows, int kVectors>
  static KVCAST_INLINE void multiply_add(const BlockOperands& o, Simd::I (&acc)[kRows][kVectors]) {
    constexpr int64_t kGroupBytes = 4 * Dot::kSteps;
    const TileRows<kRows> rows(o.a, o.a_stride);
    KVCAST_UNROLL
    for (int64_t pair = 0; pair < kBlockGroups / 2; ++pair) {
      const std::byte* const codes = o.block + pair * kPanelRowBytes + o.column * 4;
      Simd::I both[kVectors];
      Simd::I w[kVectors];
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        both[v] = Simd::load_int(codes + v * Simd::kWidth * 4);
        w[v] = low_halves_of_bytes(both[v]);
      }
      multiply_add_weights<Dot>(rows, 2 * pair * kGroupBytes, w, acc);
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) w[v] = high_halves_of_bytes(both[v]);
      multiply_add_weights<Dot>(rows, (2 * pair + 1) * kGroupBytes, w, acc);
    }
  }
};

/// One block of a tile's strip of columns.
template <class Codes, int kRows, int kVectors>
KVCAST_INLINE void multiply_block(const MultiplyArgs& m, int64_t row, int64_t block_index,
                                  const std::byte* block, int64_t column) {
  const std::byte* const a = m.a + row * m.a_stride_bytes;
  const BlockOperands o{
      .a = a + block_index * kBlockGroups * Codes::kGroupBytes,
      .headers = a + m.groups * Codes::kGroupBytes + block_index * kBlockHeaderBytes,
      .a_stride = m.a_stride_bytes,
      .block = block,
      .column = column};
  Simd::I acc[kRows][kVectors];
  Codes::begin(acc);
  Codes::multiply_add(o, acc);
  Codes::add_to_sums(o, acc, m.scratch + (row * 64 + column) * 4);
}

/// Lines of one block in the columns of a part of a panel.
KVCAST_INLINE void fetch_part_of_block(const std::byte* block, int64_t bytes, int64_t begin,
                                       int64_t end) {
  for (; bytes > 0; block += kPanelRowBytes, bytes -= kPanelRowBytes) {
    for (int64_t at = begin * 4; at < end * 4 && at < bytes; at += 64) {
      __builtin_prefetch(block + at, 0, 2);
    }
  }
}

template <class Codes, int kRows, int kVectors>
void run_block_strips(const BlockTile& t, Prefetch& prefetch) {
  const MultiplyArgs& m = *t.args;
  const bool whole = m.column_end - m.column_begin == PackedMatrix::kPanelColumns;
  if (t.block_begin == 0) {
    for (int r = 0; r < kRows; ++r) {
      for (int64_t column = m.column_begin; column < m.column_end; column += Simd::kWidth) {
        Simd::store_int(m.scratch + ((t.row + r) * 64 + column) * 4, Simd::zero_int());
      }
    }
  }
  const std::byte* block = t.blocks;
  for (int64_t b = t.block_begin; b < t.block_end; ++b, block += Codes::kBytes) {
    if (whole) {
      prefetch.step();
    } else if (prefetch.at != nullptr) {
      fetch_part_of_block(block + 2 * Codes::kBytes, Codes::kBytes, m.column_begin, m.column_end);
    }
    for (int64_t column = m.column_begin; column < m.column_end;
         column += kVectors * Simd::kWidth) {
      multiply_block<Codes, kRows, kVectors>(m, t.row, b, block, column);
    }
  }
  if (t.block_end * kBlockGroups < m.groups) return;
  KVCAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const auto* const sums = reinterpret_cast<const float*>(m.scratch) + (t.row + r) * 64;
    for (int64_t column = m.column_begin; column < m.column_end; column += Simd::kWidth) {
      finish_vector(m, t.row + r, column, Simd::load(sums + column));
    }
  }
}

template <class Codes, int kRows>
void run_block_rows(const BlockTile& t, Prefetch& prefetch) {
  if constexpr (requires { Codes::template run_rows<kRows>(t, prefetch); }) {
    return Codes::template run_rows<kRows>(t, prefetch);
  }
  constexpr int kVectors = kRows > Codes::kRowsInWholeTiles ? kTallVectors : Simd::kTileVectors;
  const int64_t width = (t.args->column_end - t.args->column_begin) / Simd::kWidth;
  if (width % kVectors == 0) {
    run_block_strips<Codes, kRows, kVectors>(t, prefetch);
  } else if (kVectors > 2 && width == 2) {
    run_block_strips<Codes, kRows, 2>(t, prefetch);
  } else {
    run_block_strips<Codes, kRows, 1>(t, prefetch);
  }
}

template <class Codes>
void run_block_tile(int64_t rows, const BlockTile& t, Prefetch& prefetch) {
  with_rows<Codes::kRowsAtOnce>(rows,
                                [&]<int kRows>() { run_block_rows<Codes, kRows>(t, prefetch); });
}

/// Columns [begin, end) of 4-bit blocks, as UnpackedInt4Codes has them.
KVCAST_INLINE void unpack_blocks(const std::byte* from, int64_t blocks, int64_t begin, int64_t end,
                                 std::byte* to) {
  for (; blocks > 0; --blocks, from += kInt4BlockBytes, to += kUnpackedBlockBytes) {
    for (int64_t column = begin; column < end; column += Simd::kWidth) {
      KVCAST_UNROLL
      for (int64_t pair = 0; pair < kBlockGroups / 2; ++pair) {
        const Simd::I both = Simd::load_int(from + pair * kPanelRowBytes + column * 4);
        std::byte* const codes = to + 2 * pair * kPanelRowBytes + column * 4;
        Simd::store_int(codes, low_halves_of_bytes(both));
        Simd::store_int(codes + kPanelRowBytes, high_halves_of_bytes(both));
      }
      auto* const steps = reinterpret_cast<float*>(to + kInt8Steps) + column;
      auto* const minimums = reinterpret_cast<float*>(to + kUnpackedMinimums) + column;
      Simd::store(steps, Simd::load_f16(from + kInt4Steps + column * 2));
      Simd::store(minimums, Simd::load_f16(from + kInt4Minimums + column * 2));
    }
  }
}

constexpr int64_t block_sums_bytes(int64_t rows) { return rows * 64 * 4; }
int64_t block_scratch_bytes(int64_t rows, int64_t) {
  return block_sums_bytes(rows) + kBlocksPerPiece * kUnpackedBlockBytes;
}

/// Row tiles of a piece, as equal in height as they can be, and what is carried between them.
template <class Codes>
void run_block_tiles(BlockTile t, int64_t tiles, Prefetch& prefetch) {
  const MultiplyArgs& m = *t.args;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    t.row = m.rows * tile / tiles;
    const int64_t rows = m.rows * (tile + 1) / tiles - t.row;
    if (m.interlude == nullptr) {
      run_block_tile<Codes>(rows, t, prefetch);
      continue;
    }
    constexpr int kLines = 2 * kInterludeLines;  // a block is two steps of other products
    prefetch.beside = m.interlude->data;
    prefetch.lines_beside = m.interlude->bytes > 0 ? kLines : 0;
    run_block_tile<Codes>(rows, t, prefetch);
    const int64_t fetched = (t.block_end - t.block_begin) * kLines * 64;
    m.interlude->advance(*m.interlude, fetched < m.interlude->bytes ? fetched : m.interlude->bytes);
  }
}

/// Blocks [block_begin, block_end) of a panel.
template <class Codes>
void multiply_pieces(const MultiplyArgs& m, int64_t block_begin, int64_t block_end,
                     bool with_prefetch) {
  using Many = typename Codes::Many;
  const bool once = m.rows <= Codes::kRowsAtOnce;
  const int64_t tiles = (m.rows + Many::kRowsPerTile - 1) / Many::kRowsPerTile;
  const int64_t all = m.groups / kBlockGroups;
  const int64_t piece = once ? block_end - block_begin : kBlocksPerPiece;
  for (int64_t b = block_begin; b < block_end; b += piece) {
    const int64_t end = b + piece < block_end ? b + piece : block_end;
    const std::byte* const blocks = m.panel + b * Codes::kBytes;
    Prefetch prefetch;
    if (with_prefetch && once) {
      prefetch = Prefetch::ahead(blocks, (end - b) * Codes::kBytes, Codes::kBytes, m.next,
                                 kBlocksReadAhead);
    } else if (with_prefetch) {
      const std::byte* const next = end < all ? m.panel + end * Codes::kBytes : m.next;
      prefetch = Prefetch::plan(next, (end - b) * Codes::kBytes, tiles * (end - b));
    }
    BlockTile t{&m, 0, blocks, b, end};
    if (once) {
      run_block_tile<Codes>(m.rows, t, prefetch);
      continue;
    }
    if constexpr (Codes::kUnpackOnce) {
      std::byte* const unpacked = m.scratch + block_sums_bytes(m.rows);
      unpack_blocks(blocks, end - b, m.column_begin, m.column_end, unpacked);
      t.blocks = unpacked;
    }
    run_block_tiles<Many>(t, tiles, prefetch);
  }
}

template <class Codes>
void multiply_blocks(const MultiplyArgs& m) {
  multiply_pieces<Codes>(m, 0, m.groups / kBlockGroups, true);
}
template <class Codes>
void multiply_block_groups(const MultiplyArgs& m, int64_t group_begin, int64_t group_end) {
  MultiplyArgs part = m;
  part.interlude = nullptr;
  multiply_pieces<Codes>(part, group_begin / kBlockGroups, group_end / kBlockGroups, false);
}

template <class Codes>
void set_block_product(MatmulKernels& kernels, void (*convert)(const ConvertArgs&)) {
  kernels.multiply = multiply_blocks<Codes>;
  kernels.multiply_groups = multiply_block_groups<Codes>;
  kernels.takes_interludes = true;
  kernels.row_multiple = Codes::Many::kRowsPerTile;
  kernels.largest_row_block = 256;  // whose activations stay in the second-level cache
  kernels.scratch_bytes = block_scratch_bytes;
  kernels.group_bytes = Codes::kGroupBytes + kBlockHeaderBytes / kBlockGroups;
  kernels.convert = convert;
}
/// Both kinds of blocks, whose activations are the same.
template <class Dot>
void set_block_products(KernelTable& t, void (*convert)(const ConvertArgs&)) {
  set_block_product<Int4Codes<Dot>>(t.int4_blocks, convert);
  set_block_product<Int8Codes<Dot>>(t.int8_blocks, convert);
}

}  // namespace
}  // namespace kvcast

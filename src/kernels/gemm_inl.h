// The product in register tiles, for instruction sets that hold a tile in vector registers.
// Every output element is one chain of multiply-adds over k from first to last, whatever the number
// of rows, the tile it falls into or the blocking: results do not depend on how rows are batched.
// Included after the file's Simd and dot_inl.h.
#pragma once

#include "kernels/kernel_table.h"

namespace kvcast {
namespace {

constexpr int64_t kPanelRowBytes = 256;
/// Most groups per block along k: a block and the next one on its way take half a second-level
/// cache, of 1 MiB where there is AVX-512 and of 256 KiB elsewhere. Starting a tile costs some 150
/// cycles, so a block is as long as that allows.
constexpr int64_t kGroupBlock = Simd::kWidth == 16 ? 1024 : 256;
/// For so few rows that weights are waited for: the nearer ahead they are fetched, the better.
constexpr int64_t kFewRowsGroupBlock = 256;
constexpr int64_t kUnroll = 4;
/// Up to so many rows are one tile, half as wide: weights pass once, at the speed of memory.
constexpr int kTallRows = Simd::kWidth == 16 ? 12 : Simd::kTileRows;
constexpr int kTallVectors = 2;

constexpr int tile_vectors(int rows) {
  if (rows == 1) return Simd::kVectorTileVectors;
  return rows > Simd::kTileRows ? kTallVectors : Simd::kTileVectors;
}
/// Tiles that so many rows make.
constexpr int64_t row_tiles(int64_t rows) {
  return rows <= kTallRows ? 1 : (rows + Simd::kTileRows - 1) / Simd::kTileRows;
}

/// Lines to fetch while a block is multiplied, spread evenly over its work.
struct Prefetch {
  const std::byte* at = nullptr;
  const std::byte* end = nullptr;
  int lines_per_step = 0;
  const std::byte* then = nullptr;    ///< where to go on from `end`, or null
  const std::byte* beside = nullptr;  ///< another range, of which every step fetches some lines
  int lines_beside = 0;
  int64_t distance = kReadAhead;  ///< how far ahead of the reader

  KVCAST_INLINE void step() {
    for (int i = 0; i < lines_per_step; ++i, at += 64) __builtin_prefetch(at, 0, 2);
    if (at >= end) at_end();
    for (int i = 0; i < lines_beside; ++i, beside += 64) __builtin_prefetch(beside, 0, 2);
  }
  /// The same where only the first so many lines of each group-row are wanted.
  template <int kLines>
  KVCAST_INLINE void step_in_part() {
    for (int i = 0; i < lines_per_step; i += kPanelRowBytes / 64, at += kPanelRowBytes) {
      KVCAST_UNROLL
      for (int line = 0; line < kLines; ++line) __builtin_prefetch(at + line * 64, 0, 2);
    }
    if (at >= end) at_end();
  }
  void at_end() {
    at = then;
    end = then == nullptr ? nullptr : then + distance;
    if (then == nullptr) lines_per_step = 0;
    then = nullptr;
  }
  static Prefetch plan(const std::byte* begin, int64_t bytes, int64_t steps) {
    if (begin == nullptr || bytes <= 0) return {};
    const int64_t lines = bytes / 64;
    return {begin, begin + bytes, static_cast<int>((lines + steps - 1) / steps), nullptr};
  }
  /// For bytes that are read once, in order: a little ahead of the reader. The hardware's own
  /// prefetcher keeps up with a loop of loads, but not with one that computes between them.
  static Prefetch ahead(const std::byte* begin, int64_t bytes, int64_t bytes_per_step,
                        const std::byte* then, int64_t distance = kReadAhead) {
    Prefetch p{begin + distance, begin + bytes, static_cast<int>(bytes_per_step / 64), then};
    p.distance = distance;
    return p;
  }
  /// The same for what one row takes of a panel; m.next is where its next part begins, or null.
  static Prefetch ahead_of_row(const MultiplyArgs& m) {
    Prefetch p = ahead(m.panel + m.column_begin * 4, m.groups * kPanelRowBytes,
                       kUnroll * kPanelRowBytes, m.next);
    p.at = m.panel + m.column_begin * 4 + kReadAhead * 64 / (m.column_end - m.column_begin);
    return p;
  }

  static constexpr int64_t kReadAhead = 3072;
};

/// Where a tile's rows of activations are. Every third row has a pointer, and the two behind it are
/// one and two strides away, which an instruction adds by itself: GCC 12, left alone, computes
/// addresses for tall tiles in more instructions than the products take.
template <int kRows>
class TileRows {
 public:
  KVCAST_INLINE TileRows(const std::byte* first, int64_t stride) : stride_(stride) {
    KVCAST_UNROLL
    for (int i = 0; i < kPointers; ++i) {
      third_[i] = first + 3 * i * stride;
      // Not to be computed from one another again.
      if constexpr (kRows > Simd::kTileRows) __asm__("" : "+r"(third_[i]));
    }
  }
  KVCAST_INLINE const std::byte* operator[](int row) const {
    return third_[row / 3] + row % 3 * stride_;
  }
  KVCAST_INLINE void skip(int64_t bytes) {
    KVCAST_UNROLL
    for (int i = 0; i < kPointers; ++i) third_[i] += bytes;
  }

 private:
  static constexpr int kPointers = (kRows + 2) / 3;
  const std::byte* third_[kPointers];
  int64_t stride_;
};

/// acc[r][v] += a[r, at:] * w[v], of one group; `at` in bytes.
template <class Dot, int kRows, int kVectors, typename Weights>
KVCAST_INLINE void multiply_add_weights(const TileRows<kRows>& a, int64_t at,
                                        const Weights (&w)[kVectors],
                                        typename Dot::Accumulator (&acc)[kRows][kVectors]) {
  const auto step = [&]<int kStep>() KVCAST_LAMBDA_INLINE {
    decltype(Dot::template expand<kStep>(w[0])) x[kVectors];
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) x[v] = Dot::template expand<kStep>(w[v]);
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const auto activation = Dot::activation(a[r] + at + kStep * 4);
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        acc[r][v] = Dot::multiply_add(acc[r][v], activation, x[v]);
      }
    }
  };
  step.template operator()<0>();
  if constexpr (Dot::kSteps == 2) step.template operator()<1>();
}

/// acc[r][v] += a[r, at:] * b[:, v], of one group-row of b.
template <class Dot, int kRows, int kVectors>
KVCAST_INLINE void multiply_add_group(const TileRows<kRows>& a, int64_t at, const std::byte* b,
                                      typename Dot::Accumulator (&acc)[kRows][kVectors]) {
  decltype(Dot::weights(b)) w[kVectors];
  KVCAST_UNROLL
  for (int v = 0; v < kVectors; ++v) w[v] = Dot::weights(b + v * Simd::kWidth * 4);
  multiply_add_weights<Dot>(a, at, w, acc);
}

/// acc[r][v] += a[r, :] * b[:, v], one group-row of b every `b_stride` bytes.
template <class Dot, int kRows, int kVectors>
KVCAST_INLINE void multiply_add(const std::byte* a, int64_t a_stride, const std::byte* b,
                                int64_t b_stride, int64_t groups, Prefetch& prefetch,
                                typename Dot::Accumulator (&acc)[kRows][kVectors]) {
  constexpr int64_t kGroupBytes = 4 * Dot::kSteps;
  TileRows<kRows> rows(a, a_stride);
  int64_t g = 0;
  for (; g + kUnroll <= groups; g += kUnroll) {
    // One row takes whole panels four vectors wide where a vector is a line.
    if constexpr (kRows == 1 && kVectors < 4 && Simd::kWidth == 16) {
      prefetch.template step_in_part<kVectors>();
    } else {
      prefetch.step();
    }
    KVCAST_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      multiply_add_group<Dot>(rows, u * kGroupBytes, b + u * b_stride, acc);
    }
    rows.skip(kUnroll * kGroupBytes);
    b += kUnroll * b_stride;
  }
  for (; g < groups; ++g, b += b_stride) {
    multiply_add_group<Dot>(rows, 0, b, acc);
    rows.skip(kGroupBytes);
  }
}

/// One register tile of a block along k.
struct Tile {
  const MultiplyArgs* args;
  int64_t row;     // first row of the tile within the block of rows
  int64_t column;  // first column within the panel
  int64_t group_begin, group_end;
};

/// Adds bias and what is in `out` to one vector of finished sums, and writes the columns W has.
KVCAST_INLINE void finish_vector(const MultiplyArgs& m, int64_t row, int64_t column, Simd::F x) {
  const int64_t valid = m.columns - column;
  float* const out = m.out + row * m.out_stride + column;
  if (valid >= Simd::kWidth) {
    if (m.bias != nullptr) x = Simd::add(x, Simd::load(m.bias + column));
    if (m.accumulate) x = Simd::add(x, Simd::load(out));
    Simd::store(out, x);
  } else if (valid > 0) {
    if (m.bias != nullptr) x = Simd::add(x, Simd::load_first(m.bias + column, valid));
    if (m.accumulate) x = Simd::add(x, Simd::load_first(out, valid));
    Simd::store_first(out, x, valid);
  }
}

template <int kRows, int kVectors>
KVCAST_INLINE void finish_tile(const Tile& t, Simd::F (&acc)[kRows][kVectors]) {
  KVCAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      finish_vector(*t.args, t.row + r, t.column + v * Simd::kWidth, acc[r][v]);
    }
  }
}

template <class Dot, int kRows, int kVectors>
void run_tile(const Tile& t, Prefetch& prefetch) {
  const MultiplyArgs& m = *t.args;
  typename Dot::Accumulator acc[kRows][kVectors];
  const auto partial = [&](int r, int v) {  // scratch: [rows, 64] sums
    return m.scratch + ((t.row + r) * 64 + t.column + v * Simd::kWidth) * 4;
  };
  KVCAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      acc[r][v] = t.group_begin == 0 ? Dot::zero() : Dot::load(partial(r, v));
    }
  }
  multiply_add<Dot>(m.a + t.row * m.a_stride_bytes + t.group_begin * 4 * Dot::kSteps,
                    m.a_stride_bytes, m.panel + t.group_begin * kPanelRowBytes + t.column * 4,
                    kPanelRowBytes, t.group_end - t.group_begin, prefetch, acc);
  if (t.group_end < m.groups) {
    KVCAST_UNROLL
    for (int r = 0; r < kRows; ++r) {
      KVCAST_UNROLL
      for (int v = 0; v < kVectors; ++v) Dot::store(partial(r, v), acc[r][v]);
    }
    return;
  }
  if constexpr (requires { Dot::to_float(t, acc); }) {
    auto scaled = Dot::to_float(t, acc);
    finish_tile(t, scaled.values);
  } else {
    finish_tile(t, acc);
  }
}

/// Calls `run` with `rows`, 1 to kMost, as its template argument.
template <int kMost, typename Run>
KVCAST_INLINE void with_rows(int64_t rows, const Run& run) {
  if constexpr (kMost == 1) {
    run.template operator()<1>();
  } else if (rows == kMost) {
    run.template operator()<kMost>();
  } else {
    with_rows<kMost - 1>(rows, run);
  }
}

/// All columns of a row tile, in strips as wide as the tile.
template <class Dot, int kRows>
void run_row_tile(Tile t, Prefetch& prefetch) {
  constexpr int kVectors = tile_vectors(kRows);
  const int64_t end = t.args->column_end;
  while (t.column < end) {
    const int64_t vectors = (end - t.column) / Simd::kWidth;
    if (vectors >= kVectors) {
      run_tile<Dot, kRows, kVectors>(t, prefetch);
      t.column += kVectors * Simd::kWidth;
    } else if (kVectors > 4 && vectors >= 4) {
      run_tile < Dot, kRows, kVectors<4 ? kVectors : 4>(t, prefetch);
      t.column += 4 * Simd::kWidth;
    } else if (kVectors > 2 && vectors >= 2) {
      run_tile < Dot, kRows, kVectors<2 ? kVectors : 2>(t, prefetch);
      t.column += 2 * Simd::kWidth;
    } else {
      run_tile<Dot, kRows, 1>(t, prefetch);
      t.column += Simd::kWidth;
    }
  }
}

template <class Dot>
void run_row_tile(int64_t rows, const Tile& t, Prefetch& prefetch) {
  with_rows<kTallRows>(rows, [&]<int kRows>() { run_row_tile<Dot, kRows>(t, prefetch); });
}

/// Lines of an interlude's data that a tile fetches in each step: with two threads of Zen 4 or 5
/// some 15 to 30 GB/s, which leaves the product's own weights room.
constexpr int kInterludeLines = 4;

template <class Dot>
void multiply(const MultiplyArgs& m) {
  const int64_t tiles = row_tiles(m.rows);
  const int64_t strip =
      tile_vectors(tiles == 1 ? static_cast<int>(m.rows) : Simd::kTileRows) * Simd::kWidth;
  const int64_t passes = tiles * ((m.column_end - m.column_begin + strip - 1) / strip);
  const int64_t longest = tiles <= 2 ? kFewRowsGroupBlock : kGroupBlock;
  // Read once: no sums to carry from block to block.
  const int64_t blocks = passes == 1 ? 1 : (m.groups + longest - 1) / longest;
  // Equally long: a short block would have to fetch a long one in little time.
  constexpr int64_t kMultiple = PackedMatrix::kGroupMultiple;
  const int64_t block = (m.groups / kMultiple + blocks - 1) / blocks * kMultiple;
  for (int64_t g = 0; g < m.groups; g += block) {
    const int64_t end = g + block < m.groups ? g + block : m.groups;
    // The block after this one: of this panel, or the first of the next panel.
    const std::byte* const next = end < m.groups ? m.panel + end * kPanelRowBytes : m.next;
    const int64_t after = end < m.groups ? m.groups - end : m.groups;
    Prefetch prefetch = passes == 1
                            ? Prefetch::ahead_of_row(m)
                            : Prefetch::plan(next, (after < block ? after : block) * kPanelRowBytes,
                                             passes * ((end - g) / kUnroll));
    for (int64_t tile = 0; tile < tiles; ++tile) {  // as equal in height as they can be
      const int64_t row = m.rows * tile / tiles;
      const int64_t rows = m.rows * (tile + 1) / tiles - row;
      const Tile at{&m, row, m.column_begin, g, end};
      if (m.interlude == nullptr) {
        run_row_tile<Dot>(rows, at, prefetch);
        continue;
      }
      prefetch.beside = m.interlude->data;
      prefetch.lines_beside = m.interlude->bytes > 0 ? kInterludeLines : 0;
      run_row_tile<Dot>(rows, at, prefetch);
      const int64_t fetched = passes / tiles * ((end - g) / kUnroll) * kInterludeLines * 64;
      m.interlude->advance(*m.interlude,
                           fetched < m.interlude->bytes ? fetched : m.interlude->bytes);
    }
  }
}

template <class Dot>
void multiply_groups(const MultiplyArgs& m, int64_t group_begin, int64_t group_end) {
  Prefetch none;
  const int64_t tiles = row_tiles(m.rows);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t row = m.rows * tile / tiles;
    const int64_t rows = m.rows * (tile + 1) / tiles - row;
    run_row_tile<Dot>(rows, {&m, row, m.column_begin, group_begin, group_end}, none);
  }
}

int64_t scratch_bytes(int64_t rows, int64_t) { return rows * 64 * 4; }

template <class Dot>
void set_product(MatmulKernels& kernels) {
  kernels.multiply = multiply<Dot>;
  kernels.takes_interludes = true;
  kernels.multiply_groups = multiply_groups<Dot>;
}
/// For a product that does not come from here.
[[maybe_unused]] void set_whole_product(MatmulKernels& kernels,
                                        void (*multiply)(const MultiplyArgs&)) {
  kernels.multiply = multiply;
  kernels.takes_interludes = false;
  kernels.multiply_groups = nullptr;
}

}  // namespace
}  // namespace kvcast

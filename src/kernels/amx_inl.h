// Products in AMX tiles: 16 rows of 64 bytes. A tile of B is 16 group-rows of 16 columns of a panel
// (row stride 256 bytes). Converted activations are tiles too: for every 16 rows, k-steps of 16
// groups, each [rows, 64 bytes] without gaps (strided tiles load at three quarters of the speed).
//
// The sums of an element pass through the same k-steps in the same order whatever the number of
// rows, so that here too a row does not depend on the rows beside it.
// Included after avx512bf16_inl.h.
#pragma once

#include "kernels/amx_blocks_inl.h"
#include "kernels/amx_row_inl.h"
#include "kernels/amx_tiles_inl.h"

namespace kvcast {
namespace {

constexpr int64_t kStepPanelBytes = kTileSide * kPanelRowBytes;  // of a panel per k-step
/// Rows and k-steps of a block: at most 1 MiB of activations stay in the second-level cache (2 MiB
/// on processors with AMX) while the columns of its panels meet them. A square of 32 x 32 takes
/// four loads and four products a step, which overlap even where all come from there; saving its
/// sums does not, so most products are one block along k.
constexpr int64_t kRowsPerBlock = 256;
constexpr int64_t kStepsPerBlock = 64;
int64_t block_steps(int64_t steps) {
  const int64_t blocks = (steps + kStepsPerBlock - 1) / kStepsPerBlock;
  return (steps + blocks - 1) / blocks;
}

/// Some rows times some columns of a panel over a block of k-steps.
struct TileBlock {
  const std::byte* a;        // first 16 rows, first step
  const std::byte* a_lower;  // the next rows, first step
  int64_t a_lower_step;      // bytes from step to step there; 1024 in the first
  const std::byte* b;        // panel, first step
  std::byte* sums;           // [rows, 64], row stride 256 bytes
  int64_t steps;
  bool first;             ///< sums start at zero
  std::byte* next_write;  ///< 32 rows of 128 bytes that will be written next, fetched meanwhile
  int64_t next_write_stride;
};

/// Up to 32 rows x 32 columns: four products for four loads.
template <class Tiles>
void multiply_square(const TileBlock& t, int64_t column, Prefetch& prefetch) {
  std::byte* const c = t.sums + column * 4;
  std::byte* const c_lower = c + kTileSide * kPanelRowBytes;
  if (t.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, c, kPanelRowBytes);
    _tile_loadd(1, c + kLine, kPanelRowBytes);
    _tile_loadd(2, c_lower, kPanelRowBytes);
    _tile_loadd(3, c_lower + kLine, kPanelRowBytes);
  }
  const std::byte* a = t.a;
  const std::byte* a_lower = t.a_lower;
  const std::byte* b = t.b + column * 4;
  std::byte* write = t.next_write;
  std::byte* const write_end = write + 32 * t.next_write_stride;
  const int64_t a_lower_step = t.a_lower_step;
  for (int64_t s = 0; s < t.steps; ++s) {
    _tile_loadd(6, b, kPanelRowBytes);
    _tile_loadd(4, a, kLine);
    prefetch.step();
    _tile_loadd(7, b + kLine, kPanelRowBytes);
    Tiles::multiply_046();
    _tile_loadd(5, a_lower, kLine);
    Tiles::multiply_147();
    for (int i = 0; i < 2 && write < write_end; ++i, write += t.next_write_stride) {
      __builtin_prefetch(write, 1, 3);
      __builtin_prefetch(write + kLine, 1, 3);
    }
    Tiles::multiply_256();
    Tiles::multiply_357();
    a += kTileSide * kLine;
    a_lower += a_lower_step;
    b += kStepPanelBytes;
  }
  _tile_stored(0, c, kPanelRowBytes);
  _tile_stored(1, c + kLine, kPanelRowBytes);
  _tile_stored(2, c_lower, kPanelRowBytes);
  _tile_stored(3, c_lower + kLine, kPanelRowBytes);
}

/// Up to 16 rows x 64 columns: the panel is read in the order it lies in memory.
template <class Tiles>
void multiply_wide(const TileBlock& t, Prefetch& prefetch) {
  if (t.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, t.sums, kPanelRowBytes);
    _tile_loadd(1, t.sums + kLine, kPanelRowBytes);
    _tile_loadd(2, t.sums + 2 * kLine, kPanelRowBytes);
    _tile_loadd(3, t.sums + 3 * kLine, kPanelRowBytes);
  }
  const std::byte* a = t.a_lower;
  const std::byte* b = t.b;
  for (int64_t s = 0; s < t.steps; ++s) {
    prefetch.step();
    _tile_loadd(4, a, kLine);
    _tile_loadd(5, b, kPanelRowBytes);
    _tile_loadd(6, b + kLine, kPanelRowBytes);
    Tiles::multiply_045();
    _tile_loadd(7, b + 2 * kLine, kPanelRowBytes);
    Tiles::multiply_146();
    _tile_loadd(5, b + 3 * kLine, kPanelRowBytes);
    Tiles::multiply_247();
    Tiles::multiply_345();
    a += t.a_lower_step;
    b += kStepPanelBytes;
  }
  _tile_stored(0, t.sums, kPanelRowBytes);
  _tile_stored(1, t.sums + kLine, kPanelRowBytes);
  _tile_stored(2, t.sums + 2 * kLine, kPanelRowBytes);
  _tile_stored(3, t.sums + 3 * kLine, kPanelRowBytes);
}

/// Sums of a panel's rows [row, row + rows) and columns [begin, end) to `out`.
template <class Tiles>
void finish_block(const MultiplyArgs& panel_args, const std::byte* sums, int64_t row, int64_t rows,
                  int64_t begin, int64_t end) {
  const std::byte* const scales =
      panel_args.panel + panel_args.groups * kPanelRowBytes;  // int8 only
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t column = begin; column < end; column += Simd::kWidth) {
      const std::byte* const at = sums + r * kPanelRowBytes + column * 4;
      Simd::F x = DotF32::load(at);
      if constexpr (Tiles::kInt8) {
        const Simd::F scale = Simd::load(reinterpret_cast<const float*>(scales + column * 4));
        const Simd::F row_scale = Simd::set(panel_args.row_scales[row + r]);
        x = Simd::mul(Simd::to_float(Simd::load_int(at)), Simd::mul(row_scale, scale));
      }
      finish_vector(panel_args, row + r, column, x);
    }
  }
}

/// A call of multiply_tiles: walks k-blocks, panels and rows.
template <class Tiles>
class TileMultiply {
 public:
  explicit TileMultiply(const MultiplyArgs& args) : m_(args) {}

  void run() {
    const int64_t steps = m_.groups / kTileSide;
    // A panel that is read once: no sums to carry from block to block.
    const int64_t block = m_.rows <= kTileSide ? steps : block_steps(steps);
    for (step_ = 0; step_ < steps; step_ += block) {
      step_count_ = steps - step_ < block ? steps - step_ : block;
      last_ = step_ + step_count_ == steps;
      for (int64_t p = 0; p < m_.panels; ++p) run_panel(p);
    }
    _tile_release();
  }

 private:
  /// All rows, 32 at a time, of one panel.
  void run_panel(int64_t p) {
    const int64_t squares = m_.rows / 32;
    const int64_t rest = m_.rows % 32;
    if (squares > 0) configure_square(kTileSide, kTileSide);
    for (int64_t i = 0; i < squares; ++i) run_rows(p, i * 32, 32, i);
    if (rest == 0) return;
    if (rest > kTileSide) {
      configure_square(kTileSide, rest - kTileSide);
    } else {
      configure_wide(rest);
    }
    run_rows(p, squares * 32, rest, squares);
  }

  /// Rows [row, row + rows), at most 32: the index-th part of the block's rows.
  void run_rows(int64_t p, int64_t row, int64_t rows, int64_t part) {
    const bool wide = rows <= kTileSide;
    const int64_t full_tiles = wide ? row / kTileSide : row / kTileSide + 1;
    const int64_t last_rows =
        m_.rows - full_tiles * kTileSide < kTileSide ? m_.rows - full_tiles * kTileSide : kTileSide;
    TileBlock t;
    t.a = m_.a + row * m_.a_stride_bytes + step_ * kTileSide * kLine;
    t.a_lower_step = last_rows * kLine;
    t.a_lower = m_.a + full_tiles * kTileSide * m_.a_stride_bytes + step_ * t.a_lower_step;
    t.steps = step_count_;
    t.first = step_ == 0;
    t.b = m_.panel + p * m_.panel_bytes + step_ * kStepPanelBytes;
    t.sums = m_.scratch + (p * m_.rows + row) * kPanelRowBytes;
    Prefetch prefetch = plan_prefetch(p, part, wide);
    if (wide) {
      multiply_wide<Tiles>(t, prefetch);
    } else {
      for (int64_t c = m_.column_begin; c < m_.column_end; c += 32) {
        plan_writes(t, p, row, rows, c);
        multiply_square<Tiles>(t, c, prefetch);
      }
    }
    if (last_) finish(p, row, rows, t.sums);
  }

  /// The last block along k ends in `out`, whose rows lie far apart.
  void plan_writes(TileBlock& t, int64_t p, int64_t row, int64_t rows, int64_t column) const {
    t.next_write = t.sums;
    t.next_write_stride = 0;
    if (!last_ || rows < 32 || m_.columns - p * 64 < column + 32) return;
    t.next_write = reinterpret_cast<std::byte*>(m_.out + row * m_.out_stride + p * 64 + column);
    t.next_write_stride = m_.out_stride * 4;
  }

  void finish(int64_t p, int64_t row, int64_t rows, const std::byte* sums) const {
    MultiplyArgs panel = m_;
    panel.panel += p * m_.panel_bytes;
    panel.columns -= p * 64;
    panel.out += p * 64;
    if (panel.bias != nullptr) panel.bias += p * 64;
    finish_block<Tiles>(panel, sums, row, rows, m_.column_begin, m_.column_end);
  }

  /// This part's share of what is multiplied after panel p's block: the next panel's, the next
  /// block along k, or the next task's first one.
  [[nodiscard]] Prefetch plan_prefetch(int64_t p, int64_t part, bool wide) const {
    const int64_t steps = m_.groups / kTileSide;
    if (m_.rows <= kTileSide) {
      const std::byte* const panel = m_.panel + p * m_.panel_bytes;
      return Prefetch::ahead(panel, steps * kStepPanelBytes, kStepPanelBytes,
                             p + 1 < m_.panels ? panel + m_.panel_bytes : m_.next);
    }
    const int64_t next_panel = p + 1 < m_.panels ? p + 1 : 0;
    int64_t next_step = next_panel > 0 ? step_ : step_ + step_count_;
    const std::byte* next = m_.panel + next_panel * m_.panel_bytes;
    if (next_step == steps) {
      if (m_.next == nullptr) return {};
      next = m_.next;
      next_step = 0;
    }
    const int64_t next_steps = steps - next_step < step_count_ ? steps - next_step : step_count_;
    const int64_t lines = next_steps * kStepPanelBytes / kLine;
    const int64_t parts = (m_.rows + 31) / 32;
    const int64_t begin = lines * part / parts;
    const int64_t end = lines * (part + 1) / parts;
    const int64_t work = step_count_ * (wide ? 1 : (m_.column_end - m_.column_begin) / 32);
    return Prefetch::plan(next + next_step * kStepPanelBytes + begin * kLine, (end - begin) * kLine,
                          work);
  }

  const MultiplyArgs& m_;
  int64_t step_ = 0, step_count_ = 0;
  bool last_ = false;
};

template <class Tiles>
void multiply_tiles(const MultiplyArgs& m) {
  if (m.rows > 1) return TileMultiply<Tiles>(m).run();
  for (int64_t p = 0; p < m.panels; ++p) {
    MultiplyArgs one = m;
    one.panel += p * m.panel_bytes;
    one.next = p + 1 < m.panels ? one.panel + m.panel_bytes : m.next;
    one.panels = 1;
    one.columns -= p * 64;
    one.out += p * 64;
    if (one.bias != nullptr) one.bias += p * 64;
    if constexpr (Tiles::kInt8) {
      multiply_row_int8(one);
    } else {
      multiply_row_bf16(one);
    }
  }
}

int64_t tile_scratch_bytes(int64_t rows, int64_t panels) {
  return (rows + kTileSide) * panels * kPanelRowBytes;
}

/// Where element group g of row r of a conversion's rows goes.
struct TileLayout {
  std::byte* out;
  int64_t rows;
  [[nodiscard]] std::byte* at(int64_t row, int64_t group) const {
    return out + group / kTileSide * rows * kLine + row * kLine + group % kTileSide * 4;
  }
};

void convert_bf16_tiles(const ConvertArgs& c) {
  const TileLayout layout{c.out, c.rows};
  for (int64_t r = 0; r < c.rows; ++r) {
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * 2, [&](int64_t i, Simd::F x) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(layout.at(r, i / 2)),
                          (__m256i)_mm512_cvtneps_pbh(x));
    });
  }
}

void convert_int8_tiles(const ConvertArgs& c) {
  const TileLayout layout{c.out, c.rows};
  for (int64_t r = 0; r < c.rows; ++r) {
    ConvertArgs row = c;
    row.a += r * c.a_stride;
    row.rows = 1;
    row.row_scales += r;
    convert_int8(
        row, [&](std::byte*, int64_t i, Simd::I q) { Simd::store_bytes(layout.at(r, i / 4), q); });
  }
}

double spin_amx(WeightType type, int64_t iterations) {
  if (type == WeightType::kF32) return avx512bf16_kernels().spin(type, iterations);
  configure_square(kTileSide, kTileSide);
  const bool int8 = is_integer(type);
  for (int64_t n = 0; n < iterations; ++n) {
    if (int8) {
      TilesInt8::multiply_046();
      TilesInt8::multiply_147();
      TilesInt8::multiply_256();
      TilesInt8::multiply_357();
    } else {
      TilesBf16::multiply_046();
      TilesBf16::multiply_147();
      TilesBf16::multiply_256();
      TilesBf16::multiply_357();
    }
  }
  _tile_release();
  constexpr double kMultiplyAdds = 4.0 * 16 * 16 * 16;  // per group element
  return static_cast<double>(iterations) * kMultiplyAdds * (int8 ? 8.0 : 4.0);
}

KernelTable amx_table() {
  KernelTable t = avx512bf16_kernels();  // compiled once: what is here differs
  t.isa = Isa::kAmx;
  t.bf16.convert = convert_bf16_tiles;
  set_whole_product(t.bf16, multiply_tiles<TilesBf16>);
  t.int8.convert = convert_int8_tiles;
  set_whole_product(t.int8, multiply_tiles<TilesInt8>);
  set_block_products_in_tiles(t);
  // Processors with AMX take longer for vdpbf16ps than for the two multiply-adds of f32.
  t.attention_bf16 = attention_kernels<CacheBf16Widened>();
  for (MatmulKernels* m : {&t.bf16, &t.int8}) {
    m->row_multiple = 32;
    m->rows_per_conversion = kTileSide;
    m->row_padding_bytes = 0;
    m->parts_of_one_row_only = true;
    m->panels_per_block = 4;
    m->largest_row_block = kRowsPerBlock;
    m->scratch_bytes = tile_scratch_bytes;
  }
  t.spin = spin_amx;
  return t;
}

}  // namespace
}  // namespace kvcast

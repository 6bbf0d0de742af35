// Small products inside attention, in the register tiles of gemm_inl.h. Included after it.
#pragma once

#include "kernels/dot_inl.h"
#include "kernels/gemm_inl.h"

namespace kvcast {
namespace {

/// out[rows, columns] = a[rows, depth] * b[depth, columns] (+ keep[row] * out), f32; depth in
/// groups of 4 bytes (1 f32, 2 bf16 or 16-bit numbers, whose exact sums are multiplied by
/// steps[row]), strides in bytes; columns is a multiple of kWidth.
struct SmallProduct {
  const void* a;
  int64_t a_stride;
  const void* b;
  int64_t b_stride;
  int64_t depth;
  float* out;
  int64_t out_stride;
  int64_t columns;
  const float* keep = nullptr;   ///< [rows] or null
  const float* steps = nullptr;  ///< [rows], of whole numbers only
};

template <class Dot, int kRows, int kVectors>
void small_tile(const SmallProduct& p, int64_t row, int64_t column) {
  constexpr bool kIntegers = requires { Dot::kIntegers; };
  typename Dot::Accumulator acc[kRows][kVectors];
  const auto at = [&](int r, int v) {
    return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(p.out) +
                                    (row + r) * p.out_stride) +
           column + v * Simd::kWidth;
  };
  KVCAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kIntegers) {
        acc[r][v] = Dot::zero();
      } else {
        acc[r][v] = p.keep == nullptr ? Simd::zero()
                                      : Simd::mul(Simd::load(at(r, v)), Simd::set(p.keep[row + r]));
      }
    }
  }
  Prefetch none;
  multiply_add<Dot>(static_cast<const std::byte*>(p.a) + row * p.a_stride, p.a_stride,
                    static_cast<const std::byte*>(p.b) + column * 4, p.b_stride, p.depth, none,
                    acc);
  KVCAST_UNROLL
  for (int r = 0; r < kRows; ++r) {
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kIntegers) {
        Simd::F x = Simd::mul(Simd::to_float(acc[r][v]), Simd::set(p.steps[row + r]));
        if (p.keep != nullptr) x = Simd::fma(Simd::load(at(r, v)), Simd::set(p.keep[row + r]), x);
        Simd::store(at(r, v), x);
      } else {
        Simd::store(at(r, v), acc[r][v]);
      }
    }
  }
}

template <class Dot, int kRows>
void small_row_tile(const SmallProduct& p, int64_t row) {
  constexpr int kVectors = Simd::kTileVectors;
  int64_t column = 0;
  for (; column + kVectors * Simd::kWidth <= p.columns; column += kVectors * Simd::kWidth) {
    small_tile<Dot, kRows, kVectors>(p, row, column);
  }
  if (kVectors > 2 && column + 2 * Simd::kWidth <= p.columns) {
    small_tile<Dot, kRows, 2>(p, row, column);
    column += 2 * Simd::kWidth;
  }
  for (; column < p.columns; column += Simd::kWidth) small_tile<Dot, kRows, 1>(p, row, column);
}

template <class Dot>
void small_product(const SmallProduct& p, int64_t rows) {
  const int64_t tiles = (rows + Simd::kTileRows - 1) / Simd::kTileRows;
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t row = rows * t / tiles;
    switch (rows * (t + 1) / tiles - row) {
      case 1:
        small_row_tile<Dot, 1>(p, row);
        break;
      case 2:
        small_row_tile<Dot, 2>(p, row);
        break;
      case 3:
        small_row_tile<Dot, 3>(p, row);
        break;
      case 4:
        small_row_tile<Dot, 4>(p, row);
        break;
      case 5:
        small_row_tile < Dot, Simd::kTileRows<5 ? 1 : 5>(p, row);
        break;
      default:
        small_row_tile < Dot, Simd::kTileRows<6 ? 1 : 6>(p, row);
    }
  }
}

}  // namespace
}  // namespace kvcast

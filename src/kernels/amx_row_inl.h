// One row on processors with AMX. It waits for weights to come from memory, and vectors read them
// more evenly than tiles, in parts of a panel too. A single converted row lies as it would without
// tiles, and its sums are those of tiles to the bit. Included after table_inl.h by amx_inl.h.
#pragma once

#include "kernels/avx512bf16_inl.h"

namespace kvcast {
namespace {

constexpr int64_t kTileSide = 16;

/// Signed activations, as tiles have them, for vpdpbusd.
struct DotInt8OfTileRow : DotInt8Vnni {
  static Simd::I activation(const std::byte* p) {
    return Simd::set_int(*reinterpret_cast<const int32_t*>(p) ^ static_cast<int32_t>(0x80808080));
  }
};

void multiply_row_int8(const MultiplyArgs& m) { multiply<DotInt8OfTileRow>(m); }

/// While it lives, denormal operands and results are zero, as they are in tiles.
class FlushDenormals {
 public:
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
};

/// What tdpbf16ps computes, to the bit: over a k-step the even and the odd elements of the groups
/// are summed apart, by fused multiply-adds; then both are added to what was there. (vdpbf16ps sums
/// in another order, and takes longer on these processors than two multiply-adds.)
template <int kVectors>
void sum_row_bf16(const MultiplyArgs& m, int64_t column, Simd::F (&sums)[kVectors]) {
  const FlushDenormals flush;
  Prefetch prefetch = Prefetch::ahead_of_row(m);
  const Simd::I odd_half = Simd::set_int(static_cast<int32_t>(0xffff0000));
  const auto as_floats = [](Simd::I x) { return (Simd::F)x; };
  KVCAST_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[v] = Simd::zero();
  for (int64_t g = 0; g < m.groups; g += kTileSide) {
    Simd::F even[kVectors], odd[kVectors];
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) even[v] = odd[v] = Simd::zero();
    for (int64_t i = g; i < g + kTileSide; i += kUnroll) {
      if constexpr (kVectors < 4) {
        prefetch.step_in_part<kVectors>();
      } else {
        prefetch.step();
      }
      KVCAST_UNROLL
      for (int64_t u = i; u < i + kUnroll; ++u) {
        const Simd::I a = DotBf16::activation(m.a + u * 4);
        const Simd::F a_even = as_floats(Simd::shift_left_int(a, 16));
        const Simd::F a_odd = as_floats(_mm512_and_si512(a, odd_half));
        KVCAST_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const Simd::I w =
              Simd::load_int(m.panel + u * kPanelRowBytes + (column + v * Simd::kWidth) * 4);
          even[v] = Simd::fma(a_even, as_floats(Simd::shift_left_int(w, 16)), even[v]);
          odd[v] = Simd::fma(a_odd, as_floats(_mm512_and_si512(w, odd_half)), odd[v]);
        }
      }
    }
    KVCAST_UNROLL
    for (int v = 0; v < kVectors; ++v) sums[v] = Simd::add(sums[v], Simd::add(even[v], odd[v]));
  }
}

template <int kVectors>
void multiply_columns_bf16(const MultiplyArgs& m, int64_t column) {
  Simd::F sums[kVectors];
  sum_row_bf16(m, column, sums);
  KVCAST_UNROLL
  for (int v = 0; v < kVectors; ++v) finish_vector(m, 0, column + v * Simd::kWidth, sums[v]);
}

void multiply_row_bf16(const MultiplyArgs& m) {
  if (m.column_end - m.column_begin == 64) return multiply_columns_bf16<4>(m, 0);
  if (m.column_end - m.column_begin == 32) return multiply_columns_bf16<2>(m, m.column_begin);
  for (int64_t column = m.column_begin; column < m.column_end; column += Simd::kWidth) {
    multiply_columns_bf16<1>(m, column);
  }
}

}  // namespace
}  // namespace kvcast

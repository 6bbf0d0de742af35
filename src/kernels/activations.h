// What the products of matmul.cpp and matmul_silu.cpp share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace kvcast {

/// Below this many multiply-adds a product is shorter than waking a thread.
inline constexpr int64_t kSerialProductWork = 100'000;

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The activations of a product as its kernels read them: the caller's own, or converted.
class Activations {
 public:
  /// Asks `scratch`, or if that is null one of the calling thread, for the memory; throws
  /// std::bad_alloc. `product` names a, its stride, rows and weight.
  void place(const MatmulArgs& product, const MatmulKernels& kernels, Scratch* scratch = nullptr);
  /// Fills it, where it has to be filled.
  void convert(int threads) const;
  /// Rows [row, row + rows), of which there may be fewer, times one panel of `product`, which reads
  /// what was placed; if it has no `out`, that is left to the caller.
  [[nodiscard]] MultiplyArgs describe(const MatmulArgs& product, int64_t panel, int64_t row,
                                      int64_t rows) const;

 private:
  const MatmulArgs* product_ = nullptr;
  const MatmulKernels* kernels_ = nullptr;
  const std::byte* data_ = nullptr;  // [rows, groups * group_bytes]
  int64_t stride_bytes_ = 0;
  std::byte* scratch_ = nullptr;  // null: nothing to convert
  float* row_scales_ = nullptr;   // [rows]
};

}  // namespace kvcast

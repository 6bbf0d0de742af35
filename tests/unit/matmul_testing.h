// A product with everything that it reads and writes, of random numbers.
#pragma once

#include "kernels_testing.h"

namespace kvcast::kernel_testing {

struct MatmulCase {
  WeightType type;
  int64_t rows, n, k;
  bool bias = false, accumulate = false;
  int threads = 1;
  int64_t a_extra = 0, out_extra = 0;  ///< strides beyond the widths
};

struct MatmulData {
  explicit MatmulData(const MatmulCase& c)
      : a_stride(c.k + c.a_extra),
        out_stride(c.n + c.out_extra),
        a(random_floats(c.rows * a_stride, 11)),
        bias(random_floats(c.n, 12)),
        out(random_floats(c.rows * out_stride, 13)),
        weight(pack_floats(random_floats(c.n * c.k, 14), c.n, c.k, c.type)),
        args{.a = a.data(),
             .a_stride = a_stride,
             .rows = c.rows,
             .weight = &weight,
             .bias = c.bias ? bias.data() : nullptr,
             .out = out.data(),
             .out_stride = out_stride,
             .accumulate = c.accumulate} {}
  int64_t a_stride, out_stride;
  std::vector<float> a, bias, out;
  PackedMatrix weight;
  MatmulArgs args;
};

}  // namespace kvcast::kernel_testing

#include "kernels/activations.h"

#include <algorithm>
#include <cassert>

#include "base/team.h"

namespace kvcast {
namespace {

/// Activations that one thread converts at once: some microseconds.
constexpr int64_t kElementsPerConversion = 16'384;

}  // namespace

bool takes_bf16_rows(const PackedMatrix& weight) {
  return kernels().matmul(weight.type()).takes_bf16_rows() && weight.k() == weight.padded_k();
}

void Activations::place(const MatmulArgs& product, const MatmulKernels& kernels, Scratch* scratch) {
  product_ = &product;
  kernels_ = &kernels;
  const PackedMatrix& w = *product.weight;
  if (product.a_bf16 != nullptr) {
    assert(takes_bf16_rows(w));
    data_ = reinterpret_cast<const std::byte*>(product.a_bf16);
    stride_bytes_ = product.a_stride * static_cast<int64_t>(sizeof(uint16_t));
    return;
  }
  if (kernels.f32_activations && w.k() == w.padded_k()) {
    data_ = reinterpret_cast<const std::byte*>(product.a);
    stride_bytes_ = product.a_stride * static_cast<int64_t>(sizeof(float));
    return;
  }
  stride_bytes_ = w.groups() * kernels.group_bytes + kernels.row_padding_bytes;
  const int64_t unit = kernels.rows_per_conversion;
  const auto row_bytes =
      static_cast<size_t>(ceil_divide(product.rows, unit) * unit * stride_bytes_);
  thread_local Scratch own;
  if (scratch == nullptr) scratch = &own;
  scratch_ = scratch->reserve(row_bytes + static_cast<size_t>(product.rows) * sizeof(float));
  data_ = scratch_;
  row_scales_ = reinterpret_cast<float*>(scratch_ + row_bytes);
}

void Activations::convert(int threads) const {
  if (scratch_ == nullptr) return;
  const MatmulArgs& p = *product_;
  const int64_t unit = kernels_->rows_per_conversion;
  const int64_t units = ceil_divide(p.rows, unit);
  const auto convert_units = [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t row = u * unit;
      kernels_->convert({.a = p.a + row * p.a_stride,
                         .a_stride = p.a_stride,
                         .rows = std::min(unit, p.rows - row),
                         .k = p.weight->k(),
                         .groups = p.weight->groups(),
                         .out = scratch_ + row * stride_bytes_,
                         .out_stride_bytes = stride_bytes_,
                         .row_scales = row_scales_ + row});
    }
  };
  parallel_pieces(units, unit * p.weight->k(), kElementsPerConversion, threads, convert_units);
}

MultiplyArgs Activations::describe(const MatmulArgs& product, int64_t panel, int64_t row,
                                   int64_t rows) const {
  const PackedMatrix& w = *product.weight;
  const int64_t column = panel * PackedMatrix::kPanelColumns;
  MultiplyArgs args;
  args.kernels = &kernels().matmul(w.type());
  args.a = data_ + row * stride_bytes_;
  args.a_stride_bytes = stride_bytes_;
  args.row_scales = row_scales_ == nullptr ? nullptr : row_scales_ + row;
  args.rows = std::min(rows, product.rows - row);
  args.groups = w.groups();
  args.panel = w.panel(panel);
  args.panel_bytes = static_cast<int64_t>(w.panel_bytes());
  args.unit_bytes = PackedMatrix::unit_bytes(w.type());
  args.columns = w.n() - column;
  args.bias = product.bias == nullptr ? nullptr : product.bias + column;
  args.out = product.out == nullptr ? nullptr : product.out + row * product.out_stride + column;
  args.out_stride = product.out_stride;
  args.accumulate = product.accumulate;
  return args;
}

}  // namespace kvcast

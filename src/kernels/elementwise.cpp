// Division of the element-wise kernels among threads.
#include <algorithm>
#include <cassert>

#include "base/team.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"

namespace kvcast {
namespace {

/// Elements below which another thread costs more than it saves.
constexpr int64_t kElementsPerPiece = 16'384;
/// SiLU is divided within rows too.
constexpr int64_t kSiluColumns = 4096;

}  // namespace

void rms_norm(const RmsNormArgs& args, int threads) {
  const KernelTable& table = kernels();
  assert(args.out_bf16 == nullptr || table.bf16.takes_bf16_rows());
  parallel_pieces(args.rows, args.dim, kElementsPerPiece, threads,
                  [&](int64_t begin, int64_t end) { table.rms_norm(args, begin, end); });
}

void head_norm_rope(const HeadNormRopeArgs& args, int threads) {
  head_norm_rope({&args, 1}, threads);
}

void head_norm_rope(std::span<const HeadNormRopeArgs> parts, int threads) {
  const KernelTable& table = kernels();
  int64_t rows = 0, elements = 0;
  for (const HeadNormRopeArgs& part : parts) {
    assert(part.head_dim % 2 == 0);
    rows += part.rows;
    elements += part.rows * part.heads * part.head_dim;
  }
  if (rows == 0) return;
  parallel_pieces(rows, elements / rows, kElementsPerPiece, threads,
                  [&](int64_t begin, int64_t end) {
                    int64_t first = 0;  // row of the part among all
                    for (const HeadNormRopeArgs& part : parts) {
                      const int64_t from = std::max(begin - first, int64_t{0});
                      const int64_t to = std::min(end - first, part.rows);
                      if (from < to) table.head_norm_rope(part, from, to);
                      first += part.rows;
                    }
                  });
}

void silu_mul(const SiluMulArgs& args, int threads) {
  const KernelTable& table = kernels();
  assert(args.out_bf16 == nullptr || table.bf16.takes_bf16_rows());
  const int64_t columns = std::min(kSiluColumns, args.ffn_dim);
  const int64_t units_per_row = (args.ffn_dim + columns - 1) / columns;
  parallel_pieces(args.rows * units_per_row, columns, kElementsPerPiece, threads,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t unit = begin; unit < end; ++unit) {
                      const int64_t column = unit % units_per_row * columns;
                      table.silu_mul(args, unit / units_per_row, column,
                                     std::min(column + columns, args.ffn_dim));
                    }
                  });
}

}  // namespace kvcast

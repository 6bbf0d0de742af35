// Division of the element-wise kernels among threads.
#include <algorithm>
#include <cassert>

#include "kernels/kernel_table.h"
#include "kernels/kernels.h"

namespace kvcast {
namespace {

/// Elements per thread below which waking the thread costs more than it saves.
constexpr int64_t kElementsPerThread = 32'768;
/// SiLU is divided within rows too: columns of one piece.
constexpr int64_t kSiluPiece = 4096;

int useful_threads(int64_t elements, int64_t pieces, int threads) {
  const int64_t by_work = std::max<int64_t>(1, elements / kElementsPerThread);
  return static_cast<int>(std::min({by_work, pieces, int64_t{threads}}));
}

}  // namespace

void rms_norm(const RmsNormArgs& args, int threads) {
  const KernelTable& table = kernels();
  const int n = useful_threads(args.rows * args.dim, args.rows, threads);
  if (n <= 1) return table.rms_norm(args, 0, args.rows);
#pragma omp parallel for num_threads(n) schedule(static)
  for (int i = 0; i < n; ++i) {
    table.rms_norm(args, args.rows * i / n, args.rows * (i + 1) / n);
  }
}

void head_norm_rope(const HeadNormRopeArgs& args, int threads) {
  assert(args.head_dim % 2 == 0);
  const KernelTable& table = kernels();
  const int n = useful_threads(args.rows * args.heads * args.head_dim, args.rows, threads);
  if (n <= 1) return table.head_norm_rope(args, 0, args.rows);
#pragma omp parallel for num_threads(n) schedule(static)
  for (int i = 0; i < n; ++i) {
    table.head_norm_rope(args, args.rows * i / n, args.rows * (i + 1) / n);
  }
}

void silu_mul(const SiluMulArgs& args, int threads) {
  const KernelTable& table = kernels();
  const int64_t pieces_per_row = (args.ffn_dim + kSiluPiece - 1) / kSiluPiece;
  const int64_t pieces = args.rows * pieces_per_row;
  const int n = useful_threads(args.rows * args.ffn_dim, pieces, threads);
  const auto run = [&](int64_t piece) {
    const int64_t begin = piece % pieces_per_row * kSiluPiece;
    table.silu_mul(args, piece / pieces_per_row, begin, std::min(begin + kSiluPiece, args.ffn_dim));
  };
  if (n <= 1) {
    for (int64_t piece = 0; piece < pieces; ++piece) run(piece);
    return;
  }
#pragma omp parallel for num_threads(n) schedule(static)
  for (int64_t piece = 0; piece < pieces; ++piece) run(piece);
}

}  // namespace kvcast

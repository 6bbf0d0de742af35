#include "train/muon.h"

#include <algorithm>
#include <cmath>

namespace kvcast::train {

Tensor orthogonalised(const Tensor& matrices) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;
  constexpr int kIterations = 5;
  const bool tall = matrices.size(1) > matrices.size(2);
  Tensor x = matrices.to(matrices.is_cuda() ? at::kBFloat16 : at::kFloat);
  if (tall) x = x.transpose(1, 2);
  const Tensor norm = x.to(at::kFloat).square().sum({1, 2}, /*keepdim=*/true).sqrt() + 1e-20;
  x = x / norm.to(x.scalar_type());
  for (int i = 0; i < kIterations; ++i) {
    const Tensor square = at::bmm(x, x.transpose(1, 2));
    const Tensor factor = at::baddbmm(square, square, square, kB, kC);
    x = at::baddbmm(x, factor, x, kA, 1.0);
  }
  return tall ? x.transpose(1, 2) : x;
}

double muon_scale(int64_t n, int64_t k) {
  return 0.2 * std::sqrt(static_cast<double>(std::max(n, k)));
}

}  // namespace kvcast::train

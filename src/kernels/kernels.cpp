#include "kernels/kernels.h"

#include "kernels/reference.h"

namespace kvcast {

void matmul(const MatmulArgs& args, int) { reference::matmul(args); }
void matmul_shared_input(std::span<const MatmulArgs> products, int) {
  for (const MatmulArgs& product : products) reference::matmul(product);
}
void rms_norm(const RmsNormArgs& args, int) { reference::rms_norm(args); }
void head_norm_rope(const HeadNormRopeArgs& args, int) { reference::head_norm_rope(args); }
void silu_mul(const SiluMulArgs& args, int) { reference::silu_mul(args); }
void attention(std::span<const AttentionArgs> sequences, const AttentionShape& shape, int) {
  reference::attention(sequences, shape);
}
double measure_peak_ops_per_s(WeightType, int, double) { return 1e9; }
double measure_read_bytes_per_s(int, double) { return 1e9; }

}  // namespace kvcast

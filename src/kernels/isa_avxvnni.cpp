#if defined(__x86_64__)
#include "kernels/simd_avx2.h"
// After Simd:
#include "kernels/vnni_inl.h"

namespace kvcast {
namespace {

double spin_avxvnni(WeightType type, int64_t iterations) {
  if (is_integer(type)) return spin_dot<DotInt8Vnni>(iterations, 8.0);
  return spin_dot<DotF32>(iterations, 2.0);  // bf16 weights are widened
}

KernelTable avxvnni_table() {
  KernelTable t = base_table(Isa::kAvxVnni);
  set_vnni_products(t);
  t.spin = spin_avxvnni;
  return t;
}

}  // namespace

const KernelTable& avxvnni_kernels() {
  static const KernelTable table = avxvnni_table();
  return table;
}

}  // namespace kvcast
#endif  // __x86_64__

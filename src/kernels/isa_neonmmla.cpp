#if defined(__aarch64__)
#include "kernels/simd_neon.h"
// After Simd:
#include "kernels/neon_mmla_inl.h"

namespace kvcast {

const KernelTable& neonmmla_kernels() {
  static const KernelTable table = neonmmla_table();
  return table;
}

}  // namespace kvcast
#endif  // __aarch64__

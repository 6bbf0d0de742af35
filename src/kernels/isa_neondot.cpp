#if defined(__aarch64__)
#include "kernels/simd_neon.h"
// After Simd:
#include "kernels/neon_inl.h"

namespace kvcast {
const KernelTable& neondot_kernels() {
  static const KernelTable table = neon_table(Isa::kNeonDot);
  return table;
}

}  // namespace kvcast
#endif  // __aarch64__

#if defined(__aarch64__)
#include "kernels/simd_neon.h"
// After Simd:
#include "kernels/neon_inl.h"

namespace kvcast {

const KernelTable& neon_kernels() {
  static const KernelTable table = neon_table(Isa::kNeon);
  return table;
}

}  // namespace kvcast
#endif  // __aarch64__

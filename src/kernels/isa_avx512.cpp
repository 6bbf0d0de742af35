#if defined(__x86_64__)
#include "kernels/simd_avx512.h"
// After Simd:
#include "kernels/nibbles_inl.h"

namespace kvcast {

const KernelTable& avx512_kernels() {
  static const KernelTable table = nibbles_table(Isa::kAvx512);
  return table;
}

}  // namespace kvcast
#endif  // __x86_64__

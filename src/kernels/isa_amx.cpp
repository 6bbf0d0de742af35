#if defined(__x86_64__)
#include "kernels/simd_avx512.h"
// After Simd:
#include "kernels/amx_inl.h"

namespace kvcast {

const KernelTable& amx_kernels() {
  static const KernelTable table = amx_table();
  return table;
}

}  // namespace kvcast
#endif  // __x86_64__

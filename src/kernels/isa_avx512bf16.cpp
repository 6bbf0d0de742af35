#if defined(__x86_64__)
#include "kernels/simd_avx512.h"
// After Simd:
#include "kernels/avx512bf16_inl.h"

namespace kvcast {

const KernelTable& avx512bf16_kernels() {
  static const KernelTable table = avx512bf16_table(Isa::kAvx512Bf16);
  return table;
}

}  // namespace kvcast
#endif  // __x86_64__

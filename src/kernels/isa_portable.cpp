#include "kernels/simd_portable.h"
// After Simd:
#include "kernels/int8_widened_inl.h"

namespace kvcast {

const KernelTable& portable_kernels() {
  static const KernelTable table = widened_table(Isa::kPortable);
  return table;
}

}  // namespace kvcast

#include "kernels/simd_portable.h"
// After Simd:
#include "kernels/table_inl.h"

namespace kvcast {

const KernelTable& portable_kernels() {
  static const KernelTable table = base_table(Isa::kPortable);
  return table;
}

}  // namespace kvcast

#if defined(__x86_64__)
#include "kernels/simd_avx512.h"
// After Simd:
#include "kernels/avx512bf16_inl.h"

namespace kvcast {
namespace {

void convert_bf16(const ConvertArgs& c) {
  for (int64_t r = 0; r < c.rows; ++r) {
    auto* const out = reinterpret_cast<uint16_t*>(c.out + r * c.out_stride_bytes);
    for_each_vector(c.a + r * c.a_stride, c.k, c.groups * 2,
                    [&](int64_t i, Simd::F x) { Simd::store_bf16(out + i, x); });
  }
}

double spin_avx512bf16(WeightType type, int64_t iterations) {
  if (type == WeightType::kBf16) return spin_dot<DotBf16>(iterations, 4.0);
  if (is_integer(type)) return spin_dot<DotInt8Vnni>(iterations, 8.0);
  return spin_dot<DotF32>(iterations, 2.0);
}

KernelTable avx512bf16_table() {
  KernelTable t = base_table(Isa::kAvx512Bf16);
  t.bf16.f32_activations = false;
  t.bf16.bf16_activations = true;
  t.bf16.group_bytes = 4;
  t.bf16.convert = convert_bf16;
  set_product<DotBf16>(t.bf16);
  t.attention_bf16 = attention_kernels<CacheBf16Dot>();
  set_vnni_products(t);
  t.spin = spin_avx512bf16;
  return t;
}

}  // namespace

const KernelTable& avx512bf16_kernels() {
  static const KernelTable table = avx512bf16_table();
  return table;
}

}  // namespace kvcast
#endif  // __x86_64__

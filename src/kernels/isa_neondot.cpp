#if defined(__aarch64__)
#include "kernels/simd_neon.h"
// After Simd:
#include "kernels/neon_inl.h"

namespace kvcast {
namespace {

/// sdot: four products of signed bytes per lane. One row's activations fill lane 0.
struct DotInt8Sdot : DotInt8<0> {
  static constexpr int kSteps = 1;
  template <int kStep>
  static Simd::I expand(Simd::I b) {
    return b;
  }
  static Simd::I activation(const std::byte* p) {
    return Simd::load_lane_0(reinterpret_cast<const int32_t*>(p));
  }
  static Accumulator multiply_add(Accumulator c, Simd::I a, Simd::I b) {
    return vdotq_laneq_s32(c, vreinterpretq_s8_s32(b), vreinterpretq_s8_s32(a), 0);
  }
};

double spin_neondot(WeightType type, int64_t iterations) {
  if (type == WeightType::kInt8) return spin_dot<DotInt8Sdot>(iterations, 8.0);
  return spin_neon(type, iterations);
}

KernelTable neondot_table() {
  KernelTable t = neon_table(Isa::kNeonDot);
  t.int8.multiply = multiply<DotInt8Sdot>;
  t.spin = spin_neondot;
  return t;
}

}  // namespace

const KernelTable& neondot_kernels() {
  static const KernelTable table = neondot_table();
  return table;
}

}  // namespace kvcast
#endif  // __aarch64__

// AArch64 Advanced SIMD (in every AArch64 processor) behind the names that the shared kernel
// templates use (see simd_avx512.h).
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"

namespace kvcast {
namespace {

struct Simd {
  using F = float32x4_t;
  using I = int32x4_t;
  static constexpr int kWidth = 4;
  /// 24 accumulators of 32 registers.
  static constexpr int kTileRows = 6;
  static constexpr int kTileVectors = 4;
  /// One row reads whole lines of the panel in the order they lie in memory.
  static constexpr int kVectorTileVectors = 16;

  static F zero() { return vdupq_n_f32(0.0F); }
  static F set(float x) { return vdupq_n_f32(x); }
  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static uint32x4_t mask(int64_t n) {
    const int32x4_t lanes = {0, 1, 2, 3};
    return vcltq_s32(lanes, vdupq_n_s32(static_cast<int32_t>(n)));
  }
  static F load_first(const float* p, int64_t n) {
    F x = zero();
    if (n > 0) x = vld1q_lane_f32(p, x, 0);
    if (n > 1) x = vld1q_lane_f32(p + 1, x, 1);
    if (n > 2) x = vld1q_lane_f32(p + 2, x, 2);
    if (n > 3) x = vld1q_lane_f32(p + 3, x, 3);
    return x;
  }
  static void store_first(float* p, F x, int64_t n) {
    if (n > 0) vst1q_lane_f32(p, x, 0);
    if (n > 1) vst1q_lane_f32(p + 1, x, 1);
    if (n > 2) vst1q_lane_f32(p + 2, x, 2);
    if (n > 3) vst1q_lane_f32(p + 3, x, 3);
  }
  static F first_or(F x, F y, int64_t n) { return vbslq_f32(mask(n), x, y); }
  static F add(F x, F y) { return vaddq_f32(x, y); }
  static F sub(F x, F y) { return vsubq_f32(x, y); }
  static F mul(F x, F y) { return vmulq_f32(x, y); }
  static F div(F x, F y) { return vdivq_f32(x, y); }
  static F fma(F x, F y, F z) { return vfmaq_f32(z, x, y); }
  /// In lane 0: multiply-adds take a lane, and a scalar load keeps the vector pipes free.
  using Repeated = float32x4_t;
  static Repeated repeat(const float* p) { return vreinterpretq_f32_s32(load_lane_0(p)); }
  static F fma_repeated(Repeated x, F y, F z) { return vfmaq_laneq_f32(z, y, x, 0); }
  static F max(F x, F y) { return vmaxq_f32(x, y); }
  static F min(F x, F y) { return vminq_f32(x, y); }
  static F abs(F x) { return vabsq_f32(x); }
  static F round(F x) { return vrndnq_f32(x); }
  static F scale_by_power(F x, F n) {
    const I exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    const I bits = vshlq_n_s32(vmaxq_s32(exponent, vdupq_n_s32(0)), 23);
    return vmulq_f32(x, vreinterpretq_f32_s32(bits));
  }
  static float sum(F x) { return vaddvq_f32(x); }
  static float largest(F x) { return vmaxvq_f32(x); }

  /// Four bytes to lane 0. The intrinsics clear the other lanes first, the instruction does it
  /// anyway.
  template <typename T>
  static I load_lane_0(const T* p) {
    static_assert(sizeof(T) == 4);
    I x;
    __asm__("ldr %s0, %1" : "=w"(x) : "m"(*p));
    return x;
  }
  static I zero_int() { return vdupq_n_s32(0); }
  static I load_int(const std::byte* p) {
    return vreinterpretq_s32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
  }
  static void store_int(std::byte* p, I x) {
    vst1q_u8(reinterpret_cast<uint8_t*>(p), vreinterpretq_u8_s32(x));
  }
  static I set_int(int32_t x) { return vdupq_n_s32(x); }
  static I xor_int(I x, I y) { return veorq_s32(x, y); }
  static I add_int(I x, I y) { return vaddq_s32(x, y); }
  static I sub_int(I x, I y) { return vsubq_s32(x, y); }
  static I and_int(I x, I y) { return vandq_s32(x, y); }
  static I shift_right_int(I x, int n) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(-n)));
  }
  static F load_f16(const std::byte* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
  }
  static I shift_left_int(I x, int n) { return vshlq_s32(x, vdupq_n_s32(n)); }
  static F to_float(I x) { return vcvtq_f32_s32(x); }
  static I to_int(F x) { return vcvtnq_s32_f32(x); }
  static F as_float(I x) { return vreinterpretq_f32_s32(x); }
  static I as_int(F x) { return vreinterpretq_s32_f32(x); }
  static F load_bf16(const uint16_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  static F load_int8(const int8_t* p) {
    uint32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    const int16x8_t halves = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(halves)));
  }
  static void store_bf16(uint16_t* p, F x, int64_t n = kWidth) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7fff));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    const uint16x4_t halves = vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), rounded, quiet), 16);
    if (n == kWidth) return vst1_u16(p, halves);
    uint16_t lanes[kWidth];
    vst1_u16(lanes, halves);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }
  static I high_halves(I x) { return vandq_s32(x, vdupq_n_s32(-65536)); }

  /// The low byte of each lane: kWidth bytes.
  static void store_bytes(std::byte* p, I x) {
    const int8x8_t bytes = vmovn_s16(vcombine_s16(vmovn_s32(x), vdup_n_s16(0)));
    vst1_lane_u32(reinterpret_cast<uint32_t*>(p), vreinterpret_u32_s8(bytes), 0);
  }

  static KVCAST_INLINE void transpose(F (&x)[4]) {
    const F a = vtrn1q_f32(x[0], x[1]);
    const F b = vtrn2q_f32(x[0], x[1]);
    const F c = vtrn1q_f32(x[2], x[3]);
    const F d = vtrn2q_f32(x[2], x[3]);
    const auto wide = [](F f) { return vreinterpretq_f64_f32(f); };
    x[0] = vreinterpretq_f32_f64(vtrn1q_f64(wide(a), wide(c)));
    x[1] = vreinterpretq_f32_f64(vtrn1q_f64(wide(b), wide(d)));
    x[2] = vreinterpretq_f32_f64(vtrn2q_f64(wide(a), wide(c)));
    x[3] = vreinterpretq_f32_f64(vtrn2q_f64(wide(b), wide(d)));
  }
};

}  // namespace
}  // namespace kvcast

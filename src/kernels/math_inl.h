// Vectorised exponential. Included after the file's Simd.
#pragma once

#include "kernels/unroll.h"

namespace kvcast {
namespace {

/// 2^f for f in [-0.5, 0.5] as 1 + f * p(f): p interpolates (2^f - 1) / f at Chebyshev nodes,
/// relative error below 6e-9, so rounding decides. Exactly 1 at 0.
KVCAST_INLINE Simd::F exp2_fraction(Simd::F f) {
  Simd::F p = Simd::set(1.545316294e-4F);
  p = Simd::fma(p, f, Simd::set(1.339086336e-3F));
  p = Simd::fma(p, f, Simd::set(9.618082557e-3F));
  p = Simd::fma(p, f, Simd::set(5.550357114e-2F));
  p = Simd::fma(p, f, Simd::set(2.402265076e-1F));
  p = Simd::fma(p, f, Simd::set(6.931471880e-1F));
  return Simd::fma(p, f, Simd::set(1.0F));
}

/// 2^x for x <= 127; 0 below about 2^-126, -infinity included.
KVCAST_INLINE Simd::F exp2(Simd::F x) {
  x = Simd::max(x, Simd::set(-200.0F));
  const Simd::F n = Simd::round(x);
  return Simd::scale_by_power(exp2_fraction(Simd::sub(x, n)), n);
}

/// e^x, x clamped to [-138, 87]: log2(e) in two parts, so that the fraction stays exact.
KVCAST_INLINE Simd::F exp(Simd::F x) {
  x = Simd::min(Simd::max(x, Simd::set(-138.0F)), Simd::set(87.0F));
  const Simd::F n = Simd::round(Simd::mul(x, Simd::set(1.44269504F)));
  Simd::F f = Simd::fma(x, Simd::set(1.44269502F), Simd::sub(Simd::zero(), n));
  f = Simd::fma(x, Simd::set(1.92596299e-8F), f);
  return Simd::scale_by_power(exp2_fraction(f), n);
}

}  // namespace
}  // namespace kvcast

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

/// The same with a relative error below 7e-6: for what is rounded to bf16 next.
KVCAST_INLINE Simd::F exp2_fraction_for_bf16(Simd::F f) {
  Simd::F p = Simd::set(9.656710289e-3F);
  p = Simd::fma(p, f, Simd::set(5.583828295e-2F));
  p = Simd::fma(p, f, Simd::set(2.402253010e-1F));
  p = Simd::fma(p, f, Simd::set(6.931367339e-1F));
  return Simd::fma(p, f, Simd::set(1.0F));
}

/// 2^x for x <= 0, with 2^-125 for whatever is less, by a `fraction` of the above. Some number for
/// x > 0, as lanes have it that nobody reads.
template <typename Fraction>
KVCAST_INLINE Simd::F exp2_up_to_zero(Simd::F x, Fraction&& fraction) {
  const Simd::F shift = Simd::set(12582912.0F);  // 1.5 * 2^23: the sum's last bits are round(x)
  x = Simd::max(x, Simd::set(-125.0F));
  const Simd::F shifted = Simd::add(x, shift);
  const Simd::F power = fraction(Simd::sub(x, Simd::sub(shifted, shift)));
  const Simd::I exponent = Simd::shift_left_int(Simd::as_int(shifted), 23);
  return Simd::as_float(Simd::add_int(Simd::as_int(power), exponent));
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

// bf16 and f16 as bit patterns, converted in plain C++. Kernels have vector versions of their own.
#pragma once

#include <bit>
#include <cstdint>

#include "base/inline.h"

namespace kvcast {

KVCAST_INLINE float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// Round to nearest even; NaN stays NaN.
KVCAST_INLINE uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

/// Round to nearest even; what is too large becomes infinite, NaN stays NaN. Without branches, so
/// that loops over it are vectorised.
KVCAST_INLINE uint16_t float_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  // Subnormal: adding 0.5 leaves multiples of 2^-24.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000U;
  const uint32_t normal = ((magnitude + 0xfffU + ((magnitude >> 13) & 1U)) >> 13) - (112U << 10);
  uint32_t result = magnitude < 0x38800000U ? subnormal : normal;
  result = magnitude >= 0x477ff000U ? 0x7c00U : result;
  result = magnitude > 0x7f800000U ? 0x7e00U : result;
  return static_cast<uint16_t>(sign | result);
}

KVCAST_INLINE float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  // Zero and subnormals: mantissa * 2^-24. (From a signed number, which vectors convert sooner.)
  const float small = static_cast<float>(static_cast<int32_t>(mantissa)) * 0x1p-24F;
  const uint32_t wide_exponent = exponent == 31 ? 255U : exponent + 112U;
  const uint32_t normal = (wide_exponent << 23) | (mantissa << 13);
  const uint32_t magnitude = exponent == 0 ? std::bit_cast<uint32_t>(small) : normal;
  return std::bit_cast<float>(sign | magnitude);
}

}  // namespace kvcast

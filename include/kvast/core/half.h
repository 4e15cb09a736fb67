// SPDX-License-Identifier: Apache-2.0
// IEEE binary16 as a storage type, converted with round-to-nearest-even on every compiler and
// machine.
#pragma once

#include <cstdint>

#include "kvast/core/numeric.h"

namespace kvast {

/// A 16-bit float that is only stored; arithmetic is done in float.
struct half {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(half, half) = default;  // of bits: -0 differs from 0
};

inline constexpr float kHalfMax = 65504.0F;  ///< largest finite half

/// Exact.
KVAST_HD constexpr float to_float(half value) {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) {
    float number = 0.0F;
    asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(value.bits));
    return number;
  }
#endif
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16U;
  const std::uint32_t exponent = (value.bits >> 10U) & 0x1FU;
  std::uint32_t mantissa = value.bits & 0x3FFU;
  if (exponent == 0x1FU) return bits_as<float>(sign | 0x7F800000U | (mantissa << 13U));
  if (exponent != 0) {
    return bits_as<float>(sign | ((exponent + 112U) << 23U) | (mantissa << 13U));
  }
  if (mantissa == 0) return bits_as<float>(sign);
  std::uint32_t shifted = 113;  // subnormal: move the leading one into place
  while ((mantissa & 0x400U) == 0) {
    mantissa <<= 1U;
    --shifted;
  }
  return bits_as<float>(sign | (shifted << 23U) | ((mantissa & 0x3FFU) << 13U));
}

/// Nearest half, ties to even; overflow gives infinity, NaN stays NaN (quiet).
KVAST_HD constexpr half to_half(float value) {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) {  // equal bits but for NaN, which is the canonical one
    std::uint16_t nearest = 0;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(nearest) : "f"(value));
    return {nearest};
  }
#endif
  const std::uint32_t bits = bits_as<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) {
    return {static_cast<std::uint16_t>(sign | 0x7E00U | ((magnitude >> 13U) & 0x3FFU))};
  }
  if (magnitude >= 0x477FF000U) return {static_cast<std::uint16_t>(sign | 0x7C00U)};
  if (magnitude < 0x38800000U) {  // subnormal half, or zero
    if (magnitude < 0x33000000U) return {static_cast<std::uint16_t>(sign)};
    const std::uint32_t shift = 126U - (magnitude >> 23U);  // 14..24
    const std::uint32_t mantissa = (magnitude & 0x7FFFFFU) | 0x800000U;
    const std::uint32_t rounded = mantissa >> shift;
    const std::uint32_t rest = mantissa & ((1U << shift) - 1U);
    const std::uint32_t middle = 1U << (shift - 1U);
    const std::uint32_t up = (rest > middle || (rest == middle && (rounded & 1U) != 0)) ? 1U : 0U;
    return {static_cast<std::uint16_t>(sign | (rounded + up))};
  }
  const std::uint32_t odd = (magnitude >> 13U) & 1U;
  const std::uint32_t rounded = magnitude + 0xFFFU + odd - 0x38000000U;
  return {static_cast<std::uint16_t>(sign | (rounded >> 13U))};
}

}  // namespace kvast

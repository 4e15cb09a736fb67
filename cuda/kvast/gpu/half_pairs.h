// SPDX-License-Identifier: Apache-2.0
// Arithmetic on two halves in one register, the first in the lower half.
#pragma once

#include "kvast/core/half.h"

namespace kvast::gpu {

/// The same half twice.
KVAST_HD constexpr std::uint32_t twice(std::uint32_t half_bits) {
  return half_bits | half_bits << 16U;
}
/// Twice 2^power, from 2^-14 to 2^15.
KVAST_HD constexpr std::uint32_t twice_power(int power) {
  return twice(static_cast<std::uint32_t>(power + 15) << 10U);
}
KVAST_HD inline std::uint32_t pair_of(float first, float second) {
  return to_half(first).bits | static_cast<std::uint32_t>(to_half(second).bits) << 16U;
}

#if !defined(__CUDA_ARCH__)
namespace detail {

/// operation(numbers of one, other and third) for both halves.
template <class Operation>
std::uint32_t each_half(std::uint32_t one, std::uint32_t other, std::uint32_t third,
                        const Operation& operation) {
  std::uint32_t result = 0;
  for (unsigned shift = 0; shift < 32; shift += 16) {
    const auto number = [shift](std::uint32_t pair) {
      return to_float(half{static_cast<std::uint16_t>(pair >> shift)});
    };
    result |= static_cast<std::uint32_t>(
                  to_half(operation(number(one), number(other), number(third))).bits)
              << shift;
  }
  return result;
}

}  // namespace detail
#endif

/// Rounded to nearest even; subnormal numbers are kept.
KVAST_HD inline std::uint32_t multiply_pairs(std::uint32_t one, std::uint32_t other) {
#if defined(__CUDA_ARCH__)
  std::uint32_t product = 0;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(one), "r"(other));
  return product;
#else
  return detail::each_half(one, other, 0, [](float x, float y, float) { return x * y; });
#endif
}

/// one * other - taken, where that is a half exactly.
KVAST_HD inline std::uint32_t multiply_subtract_pairs(std::uint32_t one, std::uint32_t other,
                                                      std::uint32_t taken) {
#if defined(__CUDA_ARCH__)
  std::uint32_t rest = 0;
  asm("{\n\t.reg .b32 negative;\n\tneg.f16x2 negative, %3;\n\t"
      "fma.rn.f16x2 %0, %1, %2, negative;\n\t}"
      : "=r"(rest)
      : "r"(one), "r"(other), "r"(taken));
  return rest;
#else
  return detail::each_half(one, other, taken, [](float x, float y, float z) { return x * y - z; });
#endif
}

}  // namespace kvast::gpu

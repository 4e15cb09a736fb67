// SPDX-License-Identifier: Apache-2.0
// bfloat16 as a storage type: the upper half of a float, its range with 8 bits of precision.
#pragma once

#include <cstdint>

#include "kvast/core/numeric.h"

namespace kvast {

/// A 16-bit float that is only stored; arithmetic is done in float.
struct bfloat16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bfloat16, bfloat16) = default;  // of bits: -0 differs from 0
};

/// Exact.
KVAST_HD constexpr float to_float(bfloat16 value) {
  return bits_as<float>(static_cast<std::uint32_t>(value.bits) << 16U);
}

/// Nearest bfloat16, ties to even; finite numbers stay finite, infinities and NaN what they are.
KVAST_HD constexpr bfloat16 to_bfloat16(float value) {
  const std::uint32_t bits = bits_as<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  // a NaN whose payload lies in the lower half must not become an infinity
  if (magnitude > 0x7F800000U) return {static_cast<std::uint16_t>((bits >> 16U) | 0x40U)};
  const std::uint32_t rounded = bits + 0x7FFFU + (bits >> 16U & 1U);
  const bool overflows = (rounded & 0x7F800000U) == 0x7F800000U;
  return {static_cast<std::uint16_t>((overflows ? bits : rounded) >> 16U)};
}

}  // namespace kvast

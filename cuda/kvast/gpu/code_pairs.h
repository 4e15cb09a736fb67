// SPDX-License-Identifier: Apache-2.0
// Codes become halves that tensor cores multiply: what attention asks of a format, and all that it
// does.
#pragma once

#include "kvast/gpu/fragments.h"
#include "kvast/gpu/half_pairs.h"

namespace kvast::gpu {

/// Of a format:
///   pair(word, index)   a word's `index`-th pair of codes (fragments.h) as halves: levels divided
///                       by kUnit, and base(register) more, where `kHasBase`
///   base(register)      of pairs of one of a fragment's four registers, as bits of a half. Tensor
///                       cores subtract its products: that is a product per fragment, where
///                       subtracting from levels would be an operation per pair
///   kCentre             the middle of the levels, a half
template <class Format>
struct CodePairs;

/// Bits put into the mantissa of a half of 2^power are 2^power + code where they begin at bit
/// 10 - power. Four and two bits are first moved up by two, so that powers are at most 8: what is
/// taken off again should not be much larger than what stays.
template <int Bits>
struct CodePairs<Int<Bits>> {
  static constexpr float kUnit = 1.0F;
  static constexpr bool kHasBase = true;
  static constexpr std::uint32_t kCentre = Bits == 8 ? 0U : Bits == 4 ? 0x4780U : 0x3E00U;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const int at = index * Bits;  // where codes begin in their halves of the word
    std::uint32_t moved = at < 8 ? word : word >> 8U;
    if constexpr (Bits != 8) moved = at < 8 ? word << 2U : word >> 6U;
    const int power = power_of(index);
    return masked_with(moved, twice(((1U << Bits) - 1U) << (10 - power)), twice_power(power));
  }
  /// Levels of eight bits are codes less 128.
  KVAST_HD static constexpr std::uint32_t base(int of_register) {
    return Bits == 8 ? 0x6480U : twice_power(power_of(of_register)) & 0xFFFFU;
  }

 private:
  KVAST_HD static constexpr int power_of(int index) {
    return Bits == 8 ? 10 : 8 - index * Bits % 8;
  }
};

/// An E4M3 moved to the place of a half's bits is 2^8 too small, subnormal or not.
template <>
struct CodePairs<Fp8<E4M3>> {
  static constexpr float kUnit = 256.0F;
  static constexpr bool kHasBase = false;
  static constexpr std::uint32_t kCentre = 0;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const std::uint32_t bits = index == 0 ? word << 8U : word;
    return (bits & 0x80008000U) | (bits >> 1U & 0x3F803F80U);
  }
  KVAST_HD static constexpr std::uint32_t base(int) { return 0; }
};

}  // namespace kvast::gpu

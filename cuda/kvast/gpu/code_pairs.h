// SPDX-License-Identifier: Apache-2.0
// Codes become halves that tensor cores multiply: what attention asks of a format, and all that it
// does.
#pragma once

#include "kvast/gpu/fragments.h"
#include "kvast/gpu/half_pairs.h"

namespace kvast::gpu {

/// pair(word, index): the levels of a word's `index`-th pair of codes (fragments.h), as halves,
/// divided by kUnit.
template <class Format>
struct CodePairs;

/// Bits put where a half of 1024 has its lowest ones are 1024 + code, or 2^at times the code where
/// they begin at bit `at`; one multiply-add makes the level of it, exactly.
template <int Bits>
struct CodePairs<Int<Bits>> {
  static constexpr float kUnit = 1.0F;
  /// A half: the middle of the levels, 0, 7.5 or 1.5.
  static constexpr std::uint32_t kCentre = Bits == 8 ? 0U : Bits == 4 ? 0x4780U : 0x3E00U;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const int at = index * Bits % 8;
    const auto mask = twice(((1U << Bits) - 1U) << at);
    const std::uint32_t bits = (word >> (index * Bits / 8 * 8) & mask) | twice(0x6400U);
    // -1024 / 2^at, and of eight bits -1024 - 128
    const std::uint32_t base = Bits == 8 ? 0xE480U : 0x8000U | static_cast<unsigned>(25 - at) << 10;
    return multiply_add_pairs(bits, twice_power(-at), twice(base));
  }
};

/// An E4M3 moved to the place of a half's bits is 2^8 too small, subnormal or not.
template <>
struct CodePairs<Fp8<E4M3>> {
  static constexpr float kUnit = 256.0F;
  static constexpr std::uint32_t kCentre = 0;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const std::uint32_t bits = index == 0 ? word << 8U : word;
    return (bits & 0x80008000U) | (bits >> 1U & 0x3F803F80U);
  }
};

}  // namespace kvast::gpu

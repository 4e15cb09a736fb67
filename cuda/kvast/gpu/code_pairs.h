// SPDX-License-Identifier: Apache-2.0
// Codes become halves that tensor cores multiply: what attention asks of a format, and all that it
// does.
#pragma once

#include "kvast/gpu/fragments.h"
#include "kvast/gpu/half_pairs.h"

namespace kvast::gpu {

/// Of a format:
///   pair(word, index)   a word's `index`-th pair of codes (fragments.h) as halves: each divided by
///                       unit(index % 2)
///   unit(row)           of a fragment's rows 0 to 7, where `row` is 0, and 8 to 15
///   kZero               the code whose level is 0; a level is a code less this one
///   kCentre             the middle of the levels
template <class Format>
struct CodePairs;

/// Bits at the end of a half that is otherwise zero are a subnormal number, as many times 2^-24 as
/// the code says, and tensor cores take those as they take others: so codes need no exponent that
/// would be a sum too much afterwards. The lowest bits of a half serve a pair of eight bits, or one
/// of either row; the pairs above them are moved there.
template <int Bits>
struct CodePairs<Int<Bits>> {
  static constexpr int kZero = Int<Bits>::kOffset;
  static constexpr float kCentre = Bits == 8 ? 0.0F : 0.5F * static_cast<float>((1 << Bits) - 1);

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    constexpr int kInPlace = Bits == 8 ? 1 : 2;  // pairs that are not moved
    const std::uint32_t moved = word >> (index / kInPlace * kInPlace * Bits);
    return moved & twice(((1U << Bits) - 1U) << (index % kInPlace * Bits));
  }
  KVAST_HD static constexpr float unit(int row) {
    return Bits == 8 || row == 0 ? 0x1p24F : 0x1p24F / static_cast<float>(1 << Bits);
  }
};

/// An E4M3 moved to the place of a half's bits is 2^8 too small, subnormal or not.
template <>
struct CodePairs<Fp8<E4M3>> {
  static constexpr int kZero = 0;
  static constexpr float kCentre = 0.0F;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const std::uint32_t bits = index == 0 ? word << 8U : word;
    return (bits & 0x80008000U) | (bits >> 1U & 0x3F803F80U);
  }
  KVAST_HD static constexpr float unit(int) { return 256.0F; }
};

}  // namespace kvast::gpu

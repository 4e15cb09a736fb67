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
///   unit(half)          of a fragment's rows 0 to 7, where `half` is 0, and 8 to 15
///   kZero               the code whose level is 0; a level is a code less this one
template <class Format>
struct CodePairs;

/// The last eleven bits of a half that is otherwise zero are a number, as many times 2^-24 as they
/// say: a subnormal one, unless the first of them is set. So codes need no exponent, which would be
/// a sum too much afterwards. Tensor cores multiply such numbers exactly, but add them as if they
/// were as large as the smallest normal one: as many bits as a code has zeros above it, they cut
/// off more of small products beside large ones (tests/simt/tensor_core.h has who measured it). So
/// codes of few bits stand as high as one shift more per word gets them, where those of a
/// fragment's upper rows have one place and those of its lower rows another. Codes of eight bits,
/// of which most are large, stay low.
template <int Bits>
struct CodePairs<Int<Bits>> {
  static constexpr int kZero = Int<Bits>::kOffset;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const int from = index * Bits;
    const int to = place(index % 2);
    const std::uint32_t moved = from < to ? word << (to - from) : word >> (from - to);
    return moved & twice(((1U << Bits) - 1U) << to);
  }
  KVAST_HD static constexpr float unit(int half) {
    return 0x1p24F / static_cast<float>(1 << place(half));
  }

 private:
  /// Where a code's lowest bit stands. Of two bits pairs 3 and 4 stay where they are, and each
  /// other shift but two serves two pairs; of four bits each shift does.
  KVAST_HD static constexpr int place(int half) {
    if constexpr (Bits == 2) return half == 0 ? 8 : 6;
    if constexpr (Bits == 4) return half == 0 ? 3 : 7;
    return 0;
  }
};

/// An E4M3 moved to the place of a half's bits is 2^8 too small, subnormal or not.
template <>
struct CodePairs<Fp8<E4M3>> {
  static constexpr int kZero = 0;

  KVAST_HD static std::uint32_t pair(std::uint32_t word, int index) {
    const std::uint32_t bits = index == 0 ? word << 8U : word;
    return (bits & 0x80008000U) | (bits >> 1U & 0x3F803F80U);
  }
  KVAST_HD static constexpr float unit(int) { return 256.0F; }
};

}  // namespace kvast::gpu

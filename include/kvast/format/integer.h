// SPDX-License-Identifier: Apache-2.0
// Int<Bits>: integer codes with metadata per group.
#pragma once

#include <cstdint>

#include "kvast/core/group.h"

namespace kvast {

/// 2, 3 and 4 bits are asymmetric: scale = (max - min) / (2^Bits - 1) and minimum, 4 bytes per
/// group. 8 bits are symmetric: scale = max |x| / 127, 2 bytes. Numbers are at most kHalfMax in
/// magnitude; levels stay within a step of that. Metadata is rounded to half first, then codes are
/// the nearest steps, ties to even, clamped. A group of equal numbers (8 bits: of zeros) has scale
/// 0. Ref: KIVI, arXiv:2402.02750, §3.1. Nothing here multiplies and then adds, so floating-point
/// contraction cannot change a code.
template <int Bits>
struct Int {
  static_assert(Bits == 2 || Bits == 3 || Bits == 4 || Bits == 8, "Int: bits are 2, 3, 4 or 8");
  static constexpr int kBits = Bits;
  static constexpr int kPlanes = Bits == 8 ? 1 : 2;
  static constexpr bool kHasLevels = false;
  static constexpr int kOffset = Bits == 8 ? 128 : 0;
  static constexpr int kDigits = Bits == 8 ? 2 : 1;
  static constexpr const char* kName = Bits == 2   ? "int2"
                                       : Bits == 3 ? "int3"
                                       : Bits == 4 ? "int4"
                                                   : "int8";

  KVAST_HD static void quantize(const float* numbers, int width, std::uint8_t* codes,
                                Affine& affine) {
    // eight candidates side by side, as vectors have them; adding zero makes -0 one with 0
    float lows[8];
    float highs[8];
    for (int at = 0; at < 8; ++at) lows[at] = highs[at] = numbers[at];
    for (int first = 8; first < width; first += 8) {
      for (int at = 0; at < 8; ++at) {
        lows[at] = least_of(lows[at], numbers[first + at]);
        highs[at] = most_of(highs[at], numbers[first + at]);
      }
    }
    float low = lows[0];
    float high = highs[0];
    for (int at = 1; at < 8; ++at) {
      low = least_of(low, lows[at]);
      high = most_of(high, highs[at]);
    }
    low += 0.0F;
    high += 0.0F;
    constexpr float kMost = Bits == 8 ? 127.0F : static_cast<float>((1 << Bits) - 1);
    constexpr float kLeast = Bits == 8 ? -127.0F : 0.0F;
    affine.minimum = Bits == 8 ? half{} : to_half(low);
    affine.scale = to_half(divide(
        Bits == 8 ? most_of(magnitude_of(low), magnitude_of(high)) : subtract(high, low), kMost));
    const float minimum = to_float(affine.minimum);
    // rounded up, the topmost level of extreme numbers could be more than a half holds
    if (minimum + kMost * to_float(affine.scale) > kHalfMax) --affine.scale.bits;
    const float scale = to_float(affine.scale);
    for (int lane = 0; lane < width; ++lane) {
      const float steps =
          scale > 0.0F ? clamped(nearest_whole(divide(subtract(numbers[lane], minimum), scale)),
                                 kLeast, kMost)
                       : 0.0F;
      codes[lane] = static_cast<std::uint8_t>(static_cast<int>(steps) + kOffset);
    }
  }
};

static_assert(CodedFormat<Int<2>> && CodedFormat<Int<3>> && CodedFormat<Int<4>> &&
              CodedFormat<Int<8>>);

}  // namespace kvast

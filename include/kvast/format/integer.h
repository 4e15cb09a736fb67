// SPDX-License-Identifier: Apache-2.0
// Int<Bits>: integer codes with metadata per group.
#pragma once

#include <algorithm>
#include <cmath>
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

  static void quantize(const float* numbers, int width, std::uint8_t* codes, Affine& affine) {
    // eight candidates side by side, as vectors have them; adding zero makes -0 one with 0
    float lows[8];
    float highs[8];
    std::copy_n(numbers, 8, lows);
    std::copy_n(numbers, 8, highs);
    for (int first = 8; first < width; first += 8) {
      for (int at = 0; at < 8; ++at) {
        lows[at] = std::min(lows[at], numbers[first + at]);
        highs[at] = std::max(highs[at], numbers[first + at]);
      }
    }
    const float low = *std::min_element(lows, lows + 8) + 0.0F;
    const float high = *std::max_element(highs, highs + 8) + 0.0F;
    constexpr float kMost = Bits == 8 ? 127.0F : static_cast<float>((1 << Bits) - 1);
    constexpr float kLeast = Bits == 8 ? -127.0F : 0.0F;
    affine.minimum = Bits == 8 ? half{} : to_half(low);
    affine.scale = to_half(Bits == 8 ? std::max(std::fabs(low), std::fabs(high)) / kMost
                                     : (high - low) / kMost);
    const float minimum = to_float(affine.minimum);
    // rounded up, the topmost level of extreme numbers could be more than a half holds
    if (minimum + kMost * to_float(affine.scale) > kHalfMax) --affine.scale.bits;
    const float scale = to_float(affine.scale);
    for (int lane = 0; lane < width; ++lane) {
      const float steps =
          scale > 0.0F
              ? std::clamp(std::nearbyint((numbers[lane] - minimum) / scale), kLeast, kMost)
              : 0.0F;
      codes[lane] = static_cast<std::uint8_t>(static_cast<int>(steps) + kOffset);
    }
  }
};

static_assert(CodedFormat<Int<2>> && CodedFormat<Int<3>> && CodedFormat<Int<4>> &&
              CodedFormat<Int<8>>);

}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// Int<Bits>: asymmetric integer codes with a scale and a minimum per group.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kvast/core/group.h"

namespace kvast {

/// Codes of `Bits` bits, least significant first; 4 bytes of metadata per group. 4 bits: 20 bytes
/// per group of 32. scale = (max - min) / 15 and min are rounded to half, then codes are
/// round_to_even((x - min) / scale), clamped. A group of equal numbers has scale 0 and codes 0.
/// Ref: KIVI, arXiv:2402.02750, §3.1. Nothing here multiplies and then adds, so floating-point
/// contraction cannot change a code.
template <int Bits>
struct Int {
  static_assert(Bits == 4, "Int: only 4 bits so far");
  static constexpr int kPlanes = 2;
  static constexpr bool kDense = false;
  static constexpr const char* kName = "int4";
  static constexpr float kLargest = 15.0F;

  static constexpr std::size_t group_bytes(int width) {
    return static_cast<std::size_t>(width) / 2;
  }

  static void encode(const float* numbers, int width, std::byte* codes, Affine& affine) {
    const auto [low, high] = std::minmax_element(numbers, numbers + width);
    affine.minimum = to_half(*low);
    affine.scale = to_half((*high - *low) / kLargest);
    const float minimum = to_float(affine.minimum);
    const float scale = to_float(affine.scale);
    std::uint8_t packed[kBlockTokens / 2] = {};
    for (int lane = 0; lane < width && scale > 0.0F; ++lane) {
      const float steps = std::nearbyint((numbers[lane] - minimum) / scale);
      const auto value = static_cast<unsigned>(std::clamp(steps, 0.0F, kLargest));
      packed[lane / 2] = static_cast<std::uint8_t>(packed[lane / 2] | value << (lane % 2 * 4));
    }
    std::memcpy(codes, packed, group_bytes(width));
  }
  static float code(const std::byte* codes, int lane) {
    const auto pair = static_cast<unsigned>(codes[lane / 2]);
    return static_cast<float>(pair >> (lane % 2 * 4) & 15U);
  }
  template <class Simd>
  static typename Simd::F lanes(const std::byte* codes, int vector) {
    return Simd::load_u4(reinterpret_cast<const std::uint8_t*>(codes) + vector * Simd::kLanes / 2);
  }
};

static_assert(Format<Int<4>>);

}  // namespace kvast

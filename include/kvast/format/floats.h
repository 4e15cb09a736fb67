// SPDX-License-Identifier: Apache-2.0
// F32, F16 and BF16: numbers as they are, no metadata.
#pragma once

#include <cstdint>

#include "kvast/core/group.h"

namespace kvast {

/// 4 bytes per number.
struct F32 {
  static constexpr const char* kName = "f32";
  static constexpr float kLargest = 3.402823466e+38F;
  using Element = float;

  KVAST_HD static Element element(float number) { return number; }
  KVAST_HD static float number(Element element) { return element; }
  template <class Simd>
  static typename Simd::F lanes(const Element* elements) {
    return Simd::load(elements);
  }
};

/// 2 bytes per number.
struct F16 {
  static constexpr const char* kName = "f16";
  static constexpr float kLargest = kHalfMax;
  using Element = half;

  KVAST_HD static Element element(float number) { return to_half(number); }
  KVAST_HD static float number(Element element) { return to_float(element); }
  template <class Simd>
  static typename Simd::F lanes(const Element* elements) {
    return Simd::load_half(elements);
  }
};

/// 2 bytes per number, the upper half of a float: the range of f32 with 8 bits of precision.
struct BF16 {
  static constexpr const char* kName = "bf16";
  static constexpr float kLargest = 3.3895314e+38F;
  struct Element {
    std::uint16_t bits = 0;
  };

  /// Nearest, ties to even; finite numbers stay finite.
  KVAST_HD static Element element(float number) {
    const auto bits = bits_as<std::uint32_t>(number);
    const std::uint32_t rounded = bits + 0x7FFFU + (bits >> 16U & 1U);
    const bool overflows = (rounded & 0x7F800000U) == 0x7F800000U;
    return {static_cast<std::uint16_t>((overflows ? bits : rounded) >> 16U)};
  }
  KVAST_HD static float number(Element element) {
    return bits_as<float>(static_cast<std::uint32_t>(element.bits) << 16U);
  }
  template <class Simd>
  static typename Simd::F lanes(const Element* elements) {
    return Simd::load_bf16(&elements->bits);
  }
};

static_assert(DenseFormat<F32> && DenseFormat<F16> && DenseFormat<BF16>);

}  // namespace kvast

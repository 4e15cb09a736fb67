// SPDX-License-Identifier: Apache-2.0
// F32, F16 and BF16: numbers as they are, no metadata.
#pragma once

#include "kvast/core/bfloat16.h"
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

/// 2 bytes per number, with the range of f32 and 8 bits of precision.
struct BF16 {
  static constexpr const char* kName = "bf16";
  static constexpr float kLargest = 3.3895314e+38F;
  using Element = bfloat16;

  KVAST_HD static Element element(float number) { return to_bfloat16(number); }
  KVAST_HD static float number(Element element) { return to_float(element); }
  template <class Simd>
  static typename Simd::F lanes(const Element* elements) {
    return Simd::load_bf16(&elements->bits);
  }
};

static_assert(DenseFormat<F32> && DenseFormat<F16> && DenseFormat<BF16>);

}  // namespace kvast

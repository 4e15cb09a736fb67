// SPDX-License-Identifier: Apache-2.0
// Fp8<E4M3> and Fp8<E5M2>: eight-bit floats, no metadata.
#pragma once

#include <cstdint>

#include "kvast/core/group.h"

namespace kvast {

/// 1, 4 and 3 bits: up to 448, no infinity ("e4m3fn" in ONNX and PyTorch).
struct E4M3 {
  static constexpr const char* kName = "fp8-e4m3";
  static constexpr int kMantissa = 3;
  static constexpr int kBias = 7;
  static constexpr float kMost = 448.0F;
};

/// 1, 5 and 2 bits: up to 57344, the upper half of an f16.
struct E5M2 {
  static constexpr const char* kName = "fp8-e5m2";
  static constexpr int kMantissa = 2;
  static constexpr int kBias = 15;
  static constexpr float kMost = 57344.0F;
};

/// 1 byte per number, rounded to nearest even. What is larger than the kind can hold is stored as
/// the largest: infinities and NaN never are. Ref: OCP 8-bit floating point specification, §5.
template <class Kind>
struct Fp8 {
  static constexpr const char* kName = Kind::kName;
  static constexpr float kLargest = 3.402823466e+38F;
  struct Element {
    std::uint8_t bits = 0;
  };

  KVAST_HD static Element element(float number) {
    constexpr int kShift = 23 - Kind::kMantissa;  // of a float's mantissa, and then of its exponent
    constexpr std::uint32_t kLeastNormal = static_cast<std::uint32_t>(128 - Kind::kBias) << 23U;
    // E4M3 spends its topmost code on NaN, E5M2 its topmost exponent on infinity and NaN
    constexpr std::uint32_t kLast = Kind::kMantissa == 3 ? 0x7EU : 0x7BU;
    constexpr auto kSteps = static_cast<float>(1U << (Kind::kBias - 1 + Kind::kMantissa));
    const auto bits = bits_as<std::uint32_t>(number);
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    const bool normal = magnitude >= kLeastNormal;
    // a step too many carries into the exponent, as it should
    const std::uint32_t odd = magnitude >> kShift & 1U;
    const std::uint32_t rounded = (magnitude + (1U << (kShift - 1)) - 1U + odd) >> kShift;
    const float steps = normal ? 0.0F : nearest_whole(magnitude_of(number) * kSteps);
    const std::uint32_t code =
        normal ? rounded - (static_cast<std::uint32_t>(127 - Kind::kBias) << Kind::kMantissa)
               : static_cast<std::uint32_t>(static_cast<int>(steps));
    return {static_cast<std::uint8_t>((bits >> 24U & 0x80U) | least_of(code, kLast))};
  }
  KVAST_HD static float number(Element element) {
    const unsigned exponent = (element.bits & 0x7FU) >> Kind::kMantissa;
    const unsigned mantissa = element.bits & ((1U << Kind::kMantissa) - 1U);
    const unsigned steps = mantissa + (exponent == 0 ? 0U : 1U << Kind::kMantissa);
    const int power =
        static_cast<int>(exponent == 0 ? 1 : exponent) - Kind::kBias - Kind::kMantissa;
    const float unit = bits_as<float>(static_cast<std::uint32_t>(127 + power) << 23U);
    const float magnitude = static_cast<float>(steps) * unit;
    return (element.bits & 0x80U) != 0 ? -magnitude : magnitude;
  }
  template <class Simd>
  static typename Simd::F lanes(const Element* elements) {
    // moved up to the place of an f16's bits, an E4M3 is 2^8 too small
    constexpr float kFactor = Kind::kMantissa == 3 ? 256.0F : 1.0F;
    return Simd::mul(Simd::template load_fp8<Kind::kMantissa>(&elements->bits),
                     Simd::set1(kFactor));
  }
};

static_assert(DenseFormat<Fp8<E4M3>> && DenseFormat<Fp8<E5M2>>);

}  // namespace kvast

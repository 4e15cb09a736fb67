// SPDX-License-Identifier: Apache-2.0
// Arithmetic that gives the same bits on the host and on a device: rounding is explicit there,
// whatever the compiler's flags, and nothing of std:: is called that device code lacks.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kvast/core/host_device.h"

namespace kvast {

/// The bits of a number as another type of the same size. (std::bit_cast is host code to nvcc.)
template <class To, class From>
KVAST_HD constexpr To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

/// As std::min, std::max and std::clamp.
template <class Number>
KVAST_HD constexpr Number least_of(Number one, Number two) {
  return two < one ? two : one;
}
template <class Number>
KVAST_HD constexpr Number most_of(Number one, Number two) {
  return one < two ? two : one;
}
template <class Number>
KVAST_HD constexpr Number clamped(Number number, Number low, Number high) {
  return number < low ? low : high < number ? high : number;
}
KVAST_HD constexpr float magnitude_of(float number) {
  return bits_as<float>(bits_as<std::uint32_t>(number) & 0x7FFFFFFFU);
}

/// Rounded to nearest even, and never joined with another operation.
KVAST_HD inline float divide(float number, float by) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(number, by);
#else
  return number / by;
#endif
}
KVAST_HD inline float subtract(float number, float other) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(number, other);
#else
  return number - other;
#endif
}
// On the host by fma: a plain product may be joined with a sum that follows.
KVAST_HD inline float multiply(float number, float by) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(number, by);
#else
  return std::fma(number, by, 0.0F);
#endif
}
KVAST_HD inline double multiply(double number, double by) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(number, by);
#else
  return std::fma(number, by, 0.0);
#endif
}
KVAST_HD inline double square_root(double number) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(number);
#else
  return std::sqrt(number);
#endif
}
/// The nearest whole number, ties to even.
KVAST_HD inline float nearest_whole(float number) {
#if defined(__CUDA_ARCH__)
  return rintf(number);
#else
  return std::nearbyint(number);
#endif
}

/// Bits that are one.
KVAST_HD inline int count_bits(std::uint32_t word) {
#if defined(__CUDA_ARCH__)
  return __popc(word);
#else
  return std::popcount(word);
#endif
}

}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// F32 and F16: numbers as they are, no metadata.
#pragma once

#include <cstdint>
#include <cstring>

#include "kvast/core/group.h"

namespace kvast {

/// 128 bytes per group of 32.
struct F32 {
  static constexpr int kPlanes = 0;
  static constexpr bool kDense = true;
  static constexpr const char* kName = "f32";
  using Element = float;

  static constexpr std::size_t group_bytes(int width) {
    return sizeof(float) * static_cast<std::size_t>(width);
  }
  static void encode(const float* numbers, int width, std::byte* codes, Affine&) {
    std::memcpy(codes, numbers, group_bytes(width));
  }
  static float code(const std::byte* codes, int lane) {
    return reinterpret_cast<const float*>(codes)[lane];
  }
  static Element element(float number) { return number; }
  template <class Simd>
  static typename Simd::F lanes(const std::byte* codes, int vector) {
    return Simd::load(reinterpret_cast<const float*>(codes) + vector * Simd::kLanes);
  }
};

/// 64 bytes per group of 32.
struct F16 {
  static constexpr int kPlanes = 0;
  static constexpr bool kDense = true;
  static constexpr const char* kName = "f16";
  using Element = half;

  static constexpr std::size_t group_bytes(int width) {
    return sizeof(half) * static_cast<std::size_t>(width);
  }
  static void encode(const float* numbers, int width, std::byte* codes, Affine&) {
    for (int lane = 0; lane < width; ++lane)
      reinterpret_cast<half*>(codes)[lane] = to_half(numbers[lane]);
  }
  static float code(const std::byte* codes, int lane) {
    return to_float(reinterpret_cast<const half*>(codes)[lane]);
  }
  static Element element(float number) { return to_half(number); }
  template <class Simd>
  static typename Simd::F lanes(const std::byte* codes, int vector) {
    return Simd::load_half(reinterpret_cast<const half*>(codes) + vector * Simd::kLanes);
  }
};

static_assert(Format<F32> && Format<F16>);

}  // namespace kvast

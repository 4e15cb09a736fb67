// SPDX-License-Identifier: Apache-2.0
// Codebook<Bits>: the levels that suit normally distributed numbers best, scaled per group.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "kvast/core/group.h"

namespace kvast {

namespace detail {

/// Lloyd-Max levels of N(0, 1), the positive half, for 2, 3 and 4 bits.
template <int Bits>
constexpr auto lloyd_max() {
  if constexpr (Bits == 2) return std::array{0.45278F, 1.51042F};
  if constexpr (Bits == 3) return std::array{0.24509F, 0.75601F, 1.34391F, 2.15195F};
  if constexpr (Bits == 4)
    return std::array{0.12840F, 0.38805F, 0.65676F, 0.94234F,
                      1.25623F, 1.61805F, 2.06902F, 2.73259F};
}

inline constexpr int kMostLevel = 63;

/// Levels by code plus kMostLevel + 1, from the least to the greatest, which is kMostLevel: whole
/// numbers, so that products with them are exact.
template <int Bits>
constexpr std::array<std::uint8_t, 16> codebook_levels() {
  const auto half_levels = lloyd_max<Bits>();
  const float most = half_levels.back();
  std::array<std::uint8_t, 16> levels{};
  constexpr int kHalf = 1 << (Bits - 1);
  for (int at = 0; at < kHalf; ++at) {
    const auto step =
        static_cast<int>(kMostLevel * half_levels[static_cast<std::size_t>(at)] / most + 0.5F);
    levels[static_cast<std::size_t>(kHalf + at)] = static_cast<std::uint8_t>(kMostLevel + 1 + step);
    levels[static_cast<std::size_t>(kHalf - 1 - at)] =
        static_cast<std::uint8_t>(kMostLevel + 1 - step);
  }
  return levels;
}
template <int Bits>
inline constexpr std::array<std::uint8_t, 16> kCodebookLevels = codebook_levels<Bits>();

}  // namespace detail

/// Codes of 2, 3 or 4 bits and one scale, 2 bytes per group; for numbers that a rotation has made
/// normal. The scale fits the group by least squares. Ref: TurboQuant, arXiv:2504.19874, §3.1; it
/// has one norm per vector, here each group of 32 has its own.
template <int Bits>
struct Codebook {
  static_assert(Bits >= 2 && Bits <= 4, "Codebook: bits are 2, 3 or 4");
  static constexpr int kBits = Bits;
  static constexpr int kPlanes = 1;
  static constexpr bool kHasLevels = true;
  static constexpr int kOffset = detail::kMostLevel + 1;
  static constexpr int kDigits = 1;
  static constexpr const std::uint8_t* kLevels = detail::kCodebookLevels<Bits>.data();
  static constexpr const char* kName = Bits == 2 ? "code2" : Bits == 3 ? "code3" : "code4";

  static void quantize(const float* numbers, int width, std::uint8_t* codes, Affine& affine) {
    double squares = 0.0;
    for (int lane = 0; lane < width; ++lane) {
      const auto number = static_cast<double>(numbers[lane]);
      squares = squares + number * number;
    }
    const double deviation = std::sqrt(squares / width);
    auto scale = static_cast<float>(
        deviation * static_cast<double>(detail::lloyd_max<Bits>().back()) / detail::kMostLevel);
    // codes, the scale that fits them best, and codes again with the scale as it is stored
    nearest(numbers, width, scale, codes);
    double product = 0.0;
    double norm = 0.0;
    for (int lane = 0; lane < width; ++lane) {
      const double level = static_cast<double>(level_of(codes[lane]));
      product = product + static_cast<double>(numbers[lane]) * level;
      norm = norm + level * level;
    }
    affine.minimum = half{};
    affine.scale = to_half(std::min(static_cast<float>(product / norm), kHalfMax));
    nearest(numbers, width, to_float(affine.scale), codes);
  }

 private:
  static int level_of(unsigned code) { return kLevels[code] - kOffset; }
  static void nearest(const float* numbers, int width, float scale, std::uint8_t* codes) {
    for (int lane = 0; lane < width; ++lane) {
      const float level = scale > 0.0F ? numbers[lane] / scale : 0.0F;
      unsigned code = 0;
      for (unsigned next = 1; next < 1U << Bits; ++next) {
        const float middle = static_cast<float>(level_of(next - 1) + level_of(next)) * 0.5F;
        code = level >= middle ? next : code;
      }
      codes[lane] = static_cast<std::uint8_t>(code);
    }
  }
};

static_assert(CodedFormat<Codebook<2>> && CodedFormat<Codebook<3>> && CodedFormat<Codebook<4>>);

}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// Codebook<Bits>: the levels that suit normally distributed numbers best, scaled per group.
#pragma once

#include <algorithm>
#include <array>
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

/// Plain arrays, as device code can read no others. Levels are whole numbers, so that products with
/// them are exact.
struct Levels {
  std::uint8_t level[16];  ///< by code, plus kMostLevel + 1; the greatest is kMostLevel
  float middle[15];        ///< between neighbouring levels, without the offset
};
template <int Bits>
constexpr Levels codebook_levels() {
  const auto half_levels = lloyd_max<Bits>();
  Levels levels{};
  constexpr std::size_t kHalf = std::size_t{1} << (Bits - 1);
  for (std::size_t at = 0; at < kHalf; ++at) {
    const auto step = static_cast<int>(kMostLevel * half_levels[at] / half_levels.back() + 0.5F);
    levels.level[kHalf + at] = static_cast<std::uint8_t>(kMostLevel + 1 + step);
    levels.level[kHalf - 1 - at] = static_cast<std::uint8_t>(kMostLevel + 1 - step);
  }
  for (std::size_t at = 0; at + 1 < 2 * kHalf; ++at)
    levels.middle[at] =
        static_cast<float>(levels.level[at] + levels.level[at + 1] - 2 * (kMostLevel + 1)) * 0.5F;
  return levels;
}
template <int Bits>
inline constexpr Levels kCodebookLevels = codebook_levels<Bits>();
template <int Bits>
inline constexpr float kMostNormal = lloyd_max<Bits>().back();

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
  static constexpr const std::uint8_t* kLevels = detail::kCodebookLevels<Bits>.level;
  static constexpr const char* kName = Bits == 2 ? "code2" : Bits == 3 ? "code3" : "code4";

  KVAST_HD static void quantize(const float* numbers, int width, std::uint8_t* codes,
                                Affine& affine) {
    constexpr float kMost = detail::kMostNormal<Bits>;
    int levels[kBlockTokens];
    const double deviation =
        square_root(products(width, [&](int lane) { return squared(numbers[lane]); }) / width);
    const auto scale =
        static_cast<float>(deviation * static_cast<double>(kMost) / detail::kMostLevel);
    // codes, the scale that fits them best, and codes again with the scale as it is stored
    nearest(numbers, width, scale, codes);
    for (int lane = 0; lane < width; ++lane) levels[lane] = level_of(codes[lane]);
    const double product = products(width, [&](int lane) {
      return static_cast<double>(numbers[lane]) * static_cast<double>(levels[lane]);
    });
    const double norm =
        products(width, [&](int lane) { return static_cast<double>(levels[lane] * levels[lane]); });
    affine.minimum = half{};
    affine.scale = to_half(least_of(static_cast<float>(product / norm), kHalfMax));
    nearest(numbers, width, to_float(affine.scale), codes);
  }

  /// kLevels[code], also in device code.
  KVAST_HD static int level(unsigned code) {
    constexpr detail::Levels kLevelsHere =
        detail::kCodebookLevels<Bits>;  // a copy: device code cannot read the other
    return kLevelsHere.level[code];
  }

 private:
  KVAST_HD static int level_of(unsigned code) { return level(code) - kOffset; }
  KVAST_HD static double squared(float number) {
    return static_cast<double>(number) * static_cast<double>(number);
  }
  /// Sum of term(lane), each exact in double: eight sums side by side, as vectors have them.
  template <class Term>
  KVAST_HD static double products(int width, const Term& term) {
    double sums[8] = {};
    for (int first = 0; first < width; first += 8) {
      for (int at = 0; at < 8; ++at) sums[at] += term(first + at);
    }
    double sum = 0.0;
    for (const double one : sums) sum += one;
    return sum;
  }
  KVAST_HD static void nearest(const float* numbers, int width, float scale, std::uint8_t* codes) {
    constexpr detail::Levels kLevelsHere =
        detail::kCodebookLevels<Bits>;  // a copy: device code cannot read the other
    float levels[kBlockTokens];
    int counts[kBlockTokens];
    for (int lane = 0; lane < width; ++lane) {
      levels[lane] = scale > 0.0F ? divide(numbers[lane], scale) : 0.0F;
      counts[lane] = 0;
    }
    for (int at = 0; at < (1 << Bits) - 1; ++at) {
      const float middle = kLevelsHere.middle[at];
      for (int lane = 0; lane < width; ++lane) counts[lane] += levels[lane] >= middle ? 1 : 0;
    }
    for (int lane = 0; lane < width; ++lane) codes[lane] = static_cast<std::uint8_t>(counts[lane]);
  }
};

static_assert(CodedFormat<Codebook<2>> && CodedFormat<Codebook<3>> && CodedFormat<Codebook<4>>);

}  // namespace kvast

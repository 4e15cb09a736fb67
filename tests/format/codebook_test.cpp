// SPDX-License-Identifier: Apache-2.0
// Codebook<Bits>: levels, nearest codes, and the level of error on normal numbers.
#include "kvast/format/codebook.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tests/support/random.h"

namespace kvast {
namespace {

template <int Bits>
std::vector<double> decoded(const std::vector<float>& numbers) {
  std::uint8_t codes[32];
  Affine affine;
  Codebook<Bits>::quantize(numbers.data(), static_cast<int>(numbers.size()), codes, affine);
  std::vector<double> out;
  for (std::size_t lane = 0; lane < numbers.size(); ++lane)
    out.push_back((Codebook<Bits>::kLevels[codes[lane]] - Codebook<Bits>::kOffset) *
                  static_cast<double>(to_float(affine.scale)));
  return out;
}

template <int Bits>
double level_of_error() {
  test::Random random(7);
  double error = 0.0;
  double norm = 0.0;
  for (int turn = 0; turn < 8000; ++turn) {
    const std::vector<float> numbers = random.normals(32);
    const std::vector<double> back = decoded<Bits>(numbers);
    for (std::size_t lane = 0; lane < 32; ++lane) {
      error += std::pow(back[lane] - static_cast<double>(numbers[lane]), 2);
      norm += std::pow(static_cast<double>(numbers[lane]), 2);
    }
  }
  return error / norm;
}

// Lloyd and Max' distortions; a scale that fits each group of 32 may only lower them.
TEST(Codebook, ErrorIsAtMostLloydAndMaxs) {
  EXPECT_LT(level_of_error<2>(), 0.1175);
  EXPECT_LT(level_of_error<3>(), 0.0346);
  EXPECT_LT(level_of_error<4>(), 0.0096);
  EXPECT_GT(level_of_error<2>(), 0.09);
  EXPECT_GT(level_of_error<4>(), 0.007);
}

TEST(Codebook, LevelsAreSymmetricAndRise) {
  const auto check = [](const std::uint8_t* levels, int count) {
    EXPECT_EQ(levels[count - 1], 64 + 63);
    for (int at = 0; at < count; ++at) {
      EXPECT_EQ(levels[at] - 64, 64 - levels[count - 1 - at]);
      if (at > 0) {
        EXPECT_GT(levels[at], levels[at - 1]);
      }
    }
  };
  check(Codebook<2>::kLevels, 4);
  check(Codebook<3>::kLevels, 8);
  check(Codebook<4>::kLevels, 16);
}

TEST(Codebook, GroupsOfZerosStayZeroAndLargeOnesFinite) {
  for (const float number : {0.0F, 65504.0F, -65504.0F, 1e-8F}) {
    for (const double back : decoded<3>(std::vector<float>(32, number)))
      EXPECT_NEAR(back, static_cast<double>(number), 0.01 * std::abs(number) + 1e-6);
  }
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// bfloat16: every value, and rounding to the nearer of two neighbours.
#include "kvast/core/bfloat16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "tests/support/random.h"

namespace kvast {
namespace {

float number_of(std::uint32_t bits) { return std::bit_cast<float>(bits << 16U); }

TEST(Bfloat16, EveryValueRoundTrips) {
  for (std::uint32_t bits = 0; bits <= 0xFFFFU; ++bits) {
    const float number = to_float(bfloat16{static_cast<std::uint16_t>(bits)});
    const bfloat16 again = to_bfloat16(number);
    if (std::isnan(number)) {
      EXPECT_TRUE(std::isnan(to_float(again))) << bits;
    } else {
      ASSERT_EQ(again.bits, bits);
    }
  }
}

TEST(Bfloat16, TakesTheNearerNeighbourAndTheEvenOneOfTwoAsNear) {
  test::Random random(1);
  for (int turn = 0; turn < 500000; ++turn) {
    const auto number = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
    const std::uint32_t below = std::bit_cast<std::uint32_t>(number) >> 16U;  // nearer to zero
    const double low = number_of(below);
    const double high = number_of(below + 1);
    if (!std::isfinite(low) || !std::isfinite(high)) continue;
    const double to_low = std::abs(static_cast<double>(number) - low);
    const double to_high = std::abs(static_cast<double>(number) - high);
    const bool up = to_high < to_low || (to_high == to_low && (below & 1U) != 0);
    ASSERT_EQ(to_bfloat16(number).bits, below + (up ? 1U : 0U)) << number;
  }
}

TEST(Bfloat16, TiesGoToTheEvenNeighbour) {
  for (std::uint32_t below = 1; below < 0x7F7FU; ++below) {
    const float middle = std::bit_cast<float>((below << 16U) | 0x8000U);
    ASSERT_EQ(to_bfloat16(middle).bits, below + (below & 1U));
    ASSERT_EQ(to_bfloat16(-middle).bits, (below + (below & 1U)) | 0x8000U);
  }
}

TEST(Bfloat16, WhatIsFiniteStaysFiniteAndNanStaysNan) {
  EXPECT_EQ(to_bfloat16(3.402823466e+38F).bits, 0x7F7FU);
  EXPECT_EQ(to_bfloat16(-3.402823466e+38F).bits, 0xFF7FU);
  EXPECT_EQ(to_bfloat16(INFINITY).bits, 0x7F80U);
  EXPECT_EQ(to_bfloat16(-INFINITY).bits, 0xFF80U);
  for (const std::uint32_t bits : {0x7FC00000U, 0x7F800001U, 0xFFFFFFFFU, 0x7FFFFFFFU}) {
    EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(bits))))) << bits;
  }
}

}  // namespace
}  // namespace kvast

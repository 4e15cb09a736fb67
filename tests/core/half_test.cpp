// SPDX-License-Identifier: Apache-2.0
// half: every value, and rounding against arithmetic in double.
#include "kvast/core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast {
namespace {

bool is_nan(half value) { return (value.bits & 0x7C00U) == 0x7C00U && (value.bits & 0x3FFU) != 0; }

/// A binary16 from its definition.
double defined(std::uint32_t bits) {
  const double sign = (bits >> 15U) != 0 ? -1.0 : 1.0;
  const int exponent = static_cast<int>(bits >> 10U & 31U);
  const double fraction = static_cast<double>(bits & 1023U) / 1024.0;
  if (exponent == 31) return fraction == 0.0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, -14);
  return sign * std::ldexp(1.0 + fraction, exponent - 15);
}

TEST(Half, EveryValueIsExactAndRoundTrips) {
  for (std::uint32_t bits = 0; bits <= 0xFFFFU; ++bits) {
    const half value{static_cast<std::uint16_t>(bits)};
    if (is_nan(value)) {
      EXPECT_TRUE(std::isnan(to_float(value))) << bits;
      EXPECT_TRUE(is_nan(to_half(to_float(value)))) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(to_float(value)), defined(bits)) << bits;
    ASSERT_EQ(to_half(to_float(value)).bits, bits);
  }
}

void expect_nearest(float number) {
  const double wanted = test::nearest_half(static_cast<double>(number));
  const half got = to_half(number);
  ASSERT_EQ(static_cast<double>(to_float(got)), wanted) << number;
  ASSERT_EQ(std::signbit(to_float(got)), std::signbit(number)) << number;
}

TEST(Half, RoundsToNearestEvenAroundEveryMidpoint) {
  for (std::uint32_t bits = 0; bits < 0x7C00U; ++bits) {
    const double low = defined(bits);
    const double high = bits + 1 == 0x7C00U ? 65536.0 : defined(bits + 1);
    const auto middle = static_cast<float>((low + high) / 2);  // exact: one bit more than a half
    for (const float sign : {1.0F, -1.0F}) {
      expect_nearest(sign * middle);
      expect_nearest(sign * std::nextafterf(middle, 0.0F));
      expect_nearest(sign * std::nextafterf(middle, INFINITY));
    }
  }
}

TEST(Half, RoundsRandomFloatsOfEveryExponent) {
  test::Random random(1);
  for (int turn = 0; turn < 500000; ++turn) {
    const auto number = std::bit_cast<float>(static_cast<std::uint32_t>(random.bits()));
    if (!std::isnan(number)) expect_nearest(number);
  }
}

TEST(Half, OverflowIsInfinityAndNanStaysNan) {
  EXPECT_EQ(to_half(65504.0F).bits, 0x7BFFU);
  EXPECT_EQ(to_half(65519.996F).bits, 0x7BFFU);
  EXPECT_EQ(to_half(65520.0F).bits, 0x7C00U);
  EXPECT_EQ(to_half(-3e38F).bits, 0xFC00U);
  EXPECT_EQ(to_half(INFINITY).bits, 0x7C00U);
  for (const std::uint32_t bits : {0x7FC00000U, 0x7F800001U, 0xFFFFFFFFU}) {
    EXPECT_TRUE(is_nan(to_half(std::bit_cast<float>(bits)))) << bits;
  }
}

}  // namespace
}  // namespace kvast

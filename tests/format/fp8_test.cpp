// SPDX-License-Identifier: Apache-2.0
// Fp8: every code, rounding to nearest even, saturation, and the level of error; and BF16.
#include "kvast/format/fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kvast/format/floats.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

template <class Kind>
class Fp8Test : public testing::Test {};
using Kinds = testing::Types<E4M3, E5M2>;
TYPED_TEST_SUITE(Fp8Test, Kinds);

template <class Kind>
float number(unsigned code) {
  return Fp8<Kind>::number({static_cast<std::uint8_t>(code)});
}
template <class Kind>
constexpr unsigned last() {
  return Kind::kMantissa == 3 ? 0x7EU : 0x7BU;
}

TYPED_TEST(Fp8Test, EveryCodeIsItsOwnNearest) {
  for (unsigned code = 0; code <= last<TypeParam>(); ++code) {
    for (const unsigned sign : {0U, 0x80U})
      EXPECT_EQ(Fp8<TypeParam>::element(number<TypeParam>(code | sign)).bits, code | sign);
    if (code > 0) {
      EXPECT_GT(number<TypeParam>(code), number<TypeParam>(code - 1));
    }
  }
}

TYPED_TEST(Fp8Test, RoundsToNearestAndTiesToEven) {
  for (unsigned code = 0; code < last<TypeParam>(); ++code) {
    const float low = number<TypeParam>(code);
    const float high = number<TypeParam>(code + 1);
    const float middle = low + (high - low) / 2.0F;
    EXPECT_EQ(Fp8<TypeParam>::element(middle).bits, code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(Fp8<TypeParam>::element(std::nextafter(middle, low)).bits, code);
    EXPECT_EQ(Fp8<TypeParam>::element(std::nextafter(middle, high)).bits, code + 1);
  }
}

TYPED_TEST(Fp8Test, WhatIsTooLargeBecomesTheLargest) {
  for (const float large :
       {TypeParam::kMost, TypeParam::kMost * 1.01F, 1e30F, std::numeric_limits<float>::max()}) {
    EXPECT_EQ(Fp8<TypeParam>::element(large).bits, last<TypeParam>());
    EXPECT_EQ(Fp8<TypeParam>::element(-large).bits, last<TypeParam>() | 0x80U);
  }
}

TEST(Fp8, HoldsTheNumbersOfItsStandard) {
  EXPECT_EQ(number<E4M3>(0x7E), 448.0F);
  EXPECT_EQ(number<E4M3>(0x08), 0x1p-6F);
  EXPECT_EQ(number<E4M3>(0x01), 0x1p-9F);
  EXPECT_EQ(number<E4M3>(0x38), 1.0F);
  EXPECT_EQ(number<E4M3>(0xB9), -1.125F);
  EXPECT_EQ(number<E5M2>(0x7B), 57344.0F);
  EXPECT_EQ(number<E5M2>(0x01), 0x1p-16F);
  EXPECT_EQ(number<E5M2>(0x3C), 1.0F);
}

template <class Format>
double level_of_error() {
  test::Random random(3);
  double error = 0.0;
  double norm = 0.0;
  for (const float number : random.normals(200000)) {
    error += std::pow(static_cast<double>(Format::number(Format::element(number)) - number), 2);
    norm += std::pow(static_cast<double>(number), 2);
  }
  return error / norm;
}

TEST(Fp8, ErrorLevelsOnNormalNumbers) {
  EXPECT_NEAR(level_of_error<Fp8<E4M3>>(), 7.1e-4, 0.03 * 7.1e-4);
  EXPECT_NEAR(level_of_error<Fp8<E5M2>>(), 2.8e-3, 0.03 * 2.8e-3);
}

TEST(BF16, RoundsToNearestEvenAndKeepsWhatIsFiniteFinite) {
  EXPECT_EQ(BF16::element(1.0F).bits, 0x3F80U);
  EXPECT_EQ(BF16::element(1.00390625F).bits, 0x3F80U) << "a tie goes to even";
  EXPECT_EQ(BF16::element(1.01171875F).bits, 0x3F82U);
  EXPECT_EQ(BF16::element(-1.004F).bits, 0xBF81U);
  EXPECT_TRUE(std::isfinite(BF16::number(BF16::element(std::numeric_limits<float>::max()))));
  test::Random random(6);
  for (const float number : random.normals(10000))
    EXPECT_NEAR(BF16::number(BF16::element(number)), number, std::abs(number) * 0x1p-8F);
}

}  // namespace
}  // namespace kvast

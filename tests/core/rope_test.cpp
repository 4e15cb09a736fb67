// SPDX-License-Identifier: Apache-2.0
// Rope: a pair is turned with one rounding, whatever a compiler contracts, since keys are encoded
// after it.
#include "kvast/core/rope.h"

#include <gtest/gtest.h>

#include "tests/support/random.h"

namespace kvast {
namespace {

TEST(Rope, APairIsRoundedOnce) {
  test::Random random(1);
  for (int turn = 0; turn < 100000; ++turn) {
    const float first = static_cast<float>(random.normal());
    const float second = static_cast<float>(random.normal());
    const double angle = 6.0 * random.uniform();
    const auto cosine = static_cast<float>(std::cos(angle));
    const auto sine = static_cast<float>(std::sin(angle));
    // each product has 48 bits at most, so these are exact, and stored before they meet
    const volatile double a = static_cast<double>(first) * static_cast<double>(cosine);
    const volatile double b = static_cast<double>(second) * static_cast<double>(sine);
    const volatile double c = static_cast<double>(first) * static_cast<double>(sine);
    const volatile double d = static_cast<double>(second) * static_cast<double>(cosine);
    float one = first;
    float two = second;
    turn_pair(one, two, cosine, sine);
    ASSERT_EQ(one, static_cast<float>(a - b));
    ASSERT_EQ(two, static_cast<float>(c + d));
  }
}

}  // namespace
}  // namespace kvast

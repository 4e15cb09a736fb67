// SPDX-License-Identifier: Apache-2.0
// RopeLevels: any position, and blocks of them, against angles in double.
#include "kvast/core/rope_levels.h"

#include <gtest/gtest.h>

#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast {
namespace {

test::ReferenceRope reference_of(const Rope& rope) {
  test::ReferenceRope reference{.interleaved = rope.pairing == Pairing::interleaved,
                                .scale = static_cast<double>(rope.scale)};
  for (const float frequency : rope.inverse_frequencies)
    reference.frequencies.push_back(static_cast<double>(frequency));
  return reference;
}

constexpr int kPositions[] = {
    0,     1,     31,      32,     33,     1000,          32767,         32768,         32769,
    65535, 65536, 1000000, 999999, 131071, (1 << 30) - 3, (1 << 30) - 1, (1 << 29) + 17};

TEST(RopeLevels, RotatesToAnyPositionAndBack) {
  test::Random random(1);
  for (const Pairing pairing : {Pairing::halves, Pairing::interleaved}) {
    for (const int width : {2, 24, 40}) {
      Rope rope = Rope::plain(width, 10000.0, pairing);
      rope.scale = 1.25F;
      const test::ReferenceRope reference = reference_of(rope);
      RopeLevels levels(rope);
      levels.grow((1 << 30) - 1);
      for (const int position : kPositions) {
        const std::vector<float> vector = random.normals(40);
        std::vector<double> wanted(vector.begin(), vector.end());
        reference.turn(wanted, position);
        std::vector<float> turned = vector;
        levels.rotate(turned.data(), position);
        for (std::size_t at = 0; at < wanted.size(); ++at)
          ASSERT_NEAR(static_cast<double>(turned[at]), wanted[at], 3e-6) << position;
        levels.undo(turned.data(), position);
        for (std::size_t at = 0; at < wanted.size(); ++at)
          ASSERT_NEAR(turned[at], vector[at], 3e-6F) << position;
      }
    }
  }
}

void expect_lines(const std::vector<int>& positions, int used) {
  Rope rope = Rope::plain(24, 10000.0, Pairing::halves);
  rope.scale = 0.5F;
  RopeLevels levels(rope);
  levels.grow(*std::max_element(positions.begin(), positions.end()));
  std::vector<float> lines(24 * 32, NAN);
  levels.lines_of(positions.data(), used, lines.data());
  for (std::size_t pair = 0; pair < 12; ++pair) {
    for (std::size_t slot = 0; slot < static_cast<std::size_t>(used); ++slot) {
      const double angle = positions[slot] * static_cast<double>(rope.inverse_frequencies[pair]);
      EXPECT_NEAR(static_cast<double>(lines[pair * 64 + slot]), 0.5 * std::cos(angle), 1e-6);
      EXPECT_NEAR(static_cast<double>(lines[pair * 64 + 32 + slot]), 0.5 * std::sin(angle), 1e-6);
    }
  }
  for (const float number : lines) EXPECT_TRUE(std::isfinite(number));
}

TEST(RopeLevels, LinesOfABlock) {
  std::vector<int> positions(32);
  for (const int first : {0, 64, 32768, 5, 4097, (1 << 20) + 31}) {
    for (int slot = 0; slot < 32; ++slot) positions[static_cast<std::size_t>(slot)] = first + slot;
    expect_lines(positions, 32);
    for (int slot = 20; slot < 32; ++slot) positions[static_cast<std::size_t>(slot)] = 0;
    expect_lines(positions, 20);
    positions[3] = 1;  // somebody moved into a hole
    expect_lines(positions, 20);
  }
  test::Random random(2);
  for (int& position : positions) position = random.below(100000);
  expect_lines(positions, 32);
}

}  // namespace
}  // namespace kvast

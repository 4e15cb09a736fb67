// SPDX-License-Identifier: Apache-2.0
// Basis: coordinates and back, for all kinds of bases.
#include "kvast/core/basis.h"

#include <gtest/gtest.h>

#include "tests/calibrate/made_up.h"

namespace kvast {
namespace {

std::shared_ptr<const BasisMatrix> directions(int heads, int dim, int rank, std::uint64_t seed) {
  test::Random random(seed);
  return test::random_directions(random, heads, dim).leading(rank);
}

/// U^T x in double, with U the columns of a head.
std::vector<double> coordinates(const BasisMatrix& matrix, int head,
                                const std::vector<float>& vector) {
  std::vector<double> found(static_cast<std::size_t>(matrix.rank), 0.0);
  for (int row = 0; row < matrix.dim; ++row) {
    for (int at = 0; at < matrix.rank; ++at)
      found[static_cast<std::size_t>(at)] +=
          static_cast<double>(vector[static_cast<std::size_t>(row)]) *
          static_cast<double>(
              matrix
                  .columns[static_cast<std::size_t>((head * matrix.dim + row) * matrix.rank + at)]);
  }
  return found;
}

// Whatever the compiler fuses: codes of other builds must be the same.
TEST(Basis, CoordinatesAreTheNearestFloatsOfASumInDouble) {
  const auto matrix = directions(2, 64, 40, 11);
  const Basis basis({.directions = matrix}, 64);
  test::Random random(12);
  for (int turn = 0; turn < 50; ++turn) {
    const auto vector = random.normals(64);
    for (const int head : {0, 1}) {
      auto numbers = vector;
      basis.apply(head, numbers.data());
      const auto wanted = coordinates(*matrix, head, vector);
      for (std::size_t at = 0; at < wanted.size(); ++at)
        ASSERT_EQ(numbers[at], static_cast<float>(wanted[at])) << turn << ' ' << at;
    }
  }
}

void expect_near(const std::vector<float>& got, const std::vector<double>& wanted) {
  for (std::size_t at = 0; at < wanted.size(); ++at)
    EXPECT_NEAR(static_cast<double>(got[at]), wanted[at], 2e-6) << at;
}

TEST(Basis, IdentityTouchesNothing) {
  const Basis basis({}, 24);
  EXPECT_TRUE(basis.is_identity());
  EXPECT_EQ(basis.rank(), 24);
  EXPECT_EQ(basis.growth(), 1.0F);
  EXPECT_EQ(basis.matrix(0), nullptr);
  test::Random random(1);
  const auto vector = random.normals(24);
  auto numbers = vector;
  basis.apply(0, numbers.data());
  basis.undo(0, numbers.data());
  EXPECT_EQ(numbers, vector);
}

TEST(Basis, RotationAlone) {
  const Basis basis({.rotates = true, .seed = 3}, 48);
  EXPECT_FALSE(basis.is_identity());
  EXPECT_EQ(basis.matrix(0), nullptr);
  EXPECT_EQ(basis.growth(), 4.0F) << "blocks of 16";
  test::Random random(2);
  const auto vector = random.normals(48);
  auto numbers = vector;
  auto expected = vector;
  basis.apply(1, numbers.data());
  Rotation::of(48, 3).apply(expected.data());
  EXPECT_EQ(numbers, expected);
  basis.undo(0, numbers.data());
  for (std::size_t at = 0; at < vector.size(); ++at) EXPECT_NEAR(vector[at], numbers[at], 1e-6F);
}

TEST(Basis, LowRankProjectsByHead) {
  const auto matrix = directions(2, 40, 16, 4);
  const Basis basis({.directions = matrix}, 40);
  EXPECT_EQ(basis.dim(), 40);
  EXPECT_EQ(basis.rank(), 16);
  test::Random random(5);
  for (int head = 0; head < 2; ++head) {
    const auto vector = random.normals(40);
    auto numbers = vector;
    basis.apply(head, numbers.data());
    expect_near(numbers, coordinates(*matrix, head, vector));
    basis.undo(head, numbers.data());  // the nearest vector: what is left out is orthogonal
    std::vector<float> rest = vector;
    for (std::size_t at = 0; at < rest.size(); ++at) rest[at] -= numbers[at];
    expect_near(std::vector<float>(16, 0.0F), coordinates(*matrix, head, rest));
    basis.apply(head, numbers.data());
    expect_near(numbers, coordinates(*matrix, head, vector));
  }
}

TEST(Basis, OneMatrixServesAllHeads) {
  const Basis basis({.directions = directions(1, 16, 8, 6)}, 16);
  EXPECT_EQ(basis.matrix(0), basis.matrix(7));
}

TEST(Basis, FullRankLosesNothing) {
  const Basis basis({.directions = directions(3, 32, 32, 7)}, 32);
  test::Random random(8);
  const auto vector = random.normals(32);
  auto numbers = vector;
  basis.apply(2, numbers.data());
  basis.undo(2, numbers.data());
  for (std::size_t at = 0; at < vector.size(); ++at) EXPECT_NEAR(numbers[at], vector[at], 3e-6F);
}

// What a rotation turns are the coordinates, so the span, and what is lost, stay the same.
TEST(Basis, RotatedLowRankHasTheSameSpan) {
  const auto matrix = directions(2, 40, 16, 9);
  const Basis plain({.directions = matrix}, 40);
  const Basis turned({.rotates = true, .seed = 5, .directions = matrix}, 40);
  test::Random random(10);
  auto one = random.normals(40);
  auto two = one;
  plain.apply(1, one.data());
  turned.apply(1, two.data());
  Rotation rotation = Rotation::of(16, 5);
  auto expected = one;
  rotation.apply(expected.data());
  for (std::size_t at = 0; at < 16; ++at) EXPECT_NEAR(two[at], expected[at], 5e-6F);
  plain.undo(1, one.data());
  turned.undo(1, two.data());
  for (std::size_t at = 0; at < 40; ++at) EXPECT_NEAR(two[at], one[at], 5e-6F);
}

TEST(Basis, CoordinatesGrowNoMoreThanItSays) {
  test::Random random(11);
  for (const BasisPlan& plan :
       {BasisPlan{.directions = directions(2, 64, 24, 12)},
        BasisPlan{.rotates = true, .seed = 1, .directions = directions(2, 64, 64, 13)},
        BasisPlan{.rotates = true, .seed = 2}}) {
    const Basis basis(plan, 64);
    EXPECT_LE(basis.growth(), 8.0001F) << "the square root of D at most";
    float most = 0.0F;
    for (int trial = 0; trial < 2000; ++trial) {
      std::vector<float> signs(64);
      for (float& sign : signs) sign = random.chance(0.5) ? 1.0F : -1.0F;
      basis.apply(trial % 2, signs.data());
      for (int at = 0; at < basis.rank(); ++at)
        most = std::max(most, std::abs(signs[static_cast<std::size_t>(at)]));
    }
    EXPECT_LE(most, basis.growth() * 1.0001F);
    EXPECT_GE(most, basis.growth() * 0.4F);
  }
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// Int<4>: golden codes, the largest error, degenerate groups, and the level of error on noise.
#include "kvast/format/integer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast {
namespace {

/// Of CodesAreTheSameBitsInEveryBuild; found with g++ 12 on x86-64.
constexpr std::uint64_t kGoldenHash = 1849207751799240354U;

struct Encoded {
  std::array<std::byte, 16> codes{};
  Affine affine{};
  double scale() const { return static_cast<double>(to_float(affine.scale)); }
  double minimum() const { return static_cast<double>(to_float(affine.minimum)); }
  double decoded(int lane) const {
    return static_cast<double>(Int<4>::code(codes.data(), lane)) * scale() + minimum();
  }
};

Encoded encode(const std::vector<float>& numbers) {
  Encoded result;
  Int<4>::encode(numbers.data(), static_cast<int>(numbers.size()), result.codes.data(),
                 result.affine);
  return result;
}

TEST(Int4, GoldenCodesOfASine) {
  std::vector<float> numbers;
  for (int lane = 0; lane < 32; ++lane) numbers.push_back(static_cast<float>(std::sin(lane)));
  const Encoded sine = encode(numbers);
  EXPECT_EQ(sine.scale(), test::nearest_half(0.13270651));
  EXPECT_EQ(sine.minimum(), test::nearest_half(-0.9999902));
  const int codes[32] = {8, 14, 14, 9, 2,  0,  5, 12, 15, 11, 3,  0,  3,  11, 15, 12,
                         5, 0,  2,  9, 14, 14, 7, 1,  1,  7,  13, 15, 10, 3,  0,  4};
  for (int lane = 0; lane < 32; ++lane)
    EXPECT_EQ(Int<4>::code(sine.codes.data(), lane), static_cast<float>(codes[lane])) << lane;
  const std::uint32_t words[4] = {0xc5029ee8U, 0xcfb303bfU, 0x17ee9205U, 0x403afd71U};
  for (std::size_t word = 0; word < 4; ++word) {
    std::uint32_t got = 0;  // least significant first, whatever the machine's byte order
    for (std::size_t byte = 0; byte < 4; ++byte)
      got |= static_cast<std::uint32_t>(sine.codes[word * 4 + byte]) << 8 * byte;
    EXPECT_EQ(got, words[word]) << word;
  }
}

TEST(Int4, EqualNumbersHaveScaleZeroAndCodesZero) {
  for (const float number : {0.0F, 1.0F, -3.5F, 65504.0F, -65504.0F, 0.1F}) {
    for (const int width : {8, 16, 24, 32}) {
      const Encoded group = encode(std::vector<float>(static_cast<std::size_t>(width), number));
      EXPECT_EQ(group.affine.scale.bits, 0U);
      EXPECT_EQ(group.minimum(), test::nearest_half(static_cast<double>(number)));
      for (int lane = 0; lane < width; ++lane)
        EXPECT_EQ(Int<4>::code(group.codes.data(), lane), 0.0F);
    }
  }
}

TEST(Int4, ErrorIsAtMostHalfAStepAndTheRoundingOfMetadata) {
  test::Random random(2);
  for (int turn = 0; turn < 4000; ++turn) {
    const int width = 8 * random.between(1, 4);
    const double spread = std::ldexp(1.0, random.between(-22, 13));
    const double centre = random.chance(0.5) ? 0.0 : 1000.0 * random.normal();
    std::vector<float> numbers(static_cast<std::size_t>(width));
    for (float& number : numbers)
      number = static_cast<float>(centre + spread * (random.uniform() - 0.5));
    const Encoded group = encode(numbers);
    const auto [low, high] = std::minmax_element(numbers.begin(), numbers.end());
    const double below = group.minimum() - static_cast<double>(*low);
    const double above = static_cast<double>(*high) - group.minimum() - 15.0 * group.scale();
    // the division is rounded to float
    const double step = 0.5 * group.scale() * (1.0 + 1e-5);
    const double bound = std::max({step, below, above}) + 1e-12;
    EXPECT_EQ(group.minimum(), test::nearest_half(static_cast<double>(*low)));
    for (int lane = 0; lane < width; ++lane) {
      const double number = static_cast<double>(numbers[static_cast<std::size_t>(lane)]);
      ASSERT_LE(std::abs(group.decoded(lane) - number), bound) << turn << " lane " << lane;
    }
  }
}

TEST(Int4, ErrorLevelOnNormalNumbers) {
  test::Random random(3);
  double error = 0.0;
  double norm = 0.0;
  for (int turn = 0; turn < 8000; ++turn) {
    const std::vector<float> numbers = random.normals(32);
    const Encoded group = encode(numbers);
    for (int lane = 0; lane < 32; ++lane) {
      const double number = static_cast<double>(numbers[static_cast<std::size_t>(lane)]);
      error += std::pow(group.decoded(lane) - number, 2);
      norm += number * number;
    }
  }
  EXPECT_NEAR(error / norm, 0.00612, 0.03 * 0.00612);
}

TEST(Int4, CodesAreTheSameBitsInEveryBuild) {
  test::Random random(4);
  std::uint64_t hash = 0;
  for (int turn = 0; turn < 2000; ++turn) {
    std::vector<float> numbers(32);
    // sums of uniforms, since a libm may differ in the last bit
    for (float& number : numbers)
      number = static_cast<float>(8.0 * (random.uniform() + random.uniform() - 1.0));
    const Encoded group = encode(numbers);
    for (const std::byte byte : group.codes) hash = test::mix(hash ^ static_cast<unsigned>(byte));
    hash = test::mix(hash ^ group.affine.scale.bits);
    hash = test::mix(hash ^ group.affine.minimum.bits);
  }
  EXPECT_EQ(hash, kGoldenHash) << std::hex << hash;
}

TEST(Int4, WritesNoByteBeyondTheGroup) {
  for (const int width : {8, 16, 24}) {
    std::vector<float> numbers;
    for (int lane = 0; lane < width; ++lane) numbers.push_back(static_cast<float>(lane));
    std::array<std::byte, 16> codes;
    codes.fill(std::byte{0xAB});
    Affine affine;
    Int<4>::encode(numbers.data(), width, codes.data(), affine);
    for (std::size_t byte = Int<4>::group_bytes(width); byte < codes.size(); ++byte)
      EXPECT_EQ(codes[byte], std::byte{0xAB}) << width;
  }
}

}  // namespace
}  // namespace kvast

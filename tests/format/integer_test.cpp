// SPDX-License-Identifier: Apache-2.0
// Int<Bits>: golden codes, the largest error, degenerate groups, and the level of error on noise.
#include "kvast/format/integer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/support/random.h"
#include "tests/support/reference.h"

namespace kvast {
namespace {

template <int Bits>
struct Group {
  std::array<std::uint8_t, 32> codes{};
  Affine affine{};

  explicit Group(const std::vector<float>& numbers) {
    Int<Bits>::quantize(numbers.data(), static_cast<int>(numbers.size()), codes.data(), affine);
  }
  double scale() const { return static_cast<double>(to_float(affine.scale)); }
  double minimum() const { return static_cast<double>(to_float(affine.minimum)); }
  int level(int lane) const {
    const std::uint8_t code = codes[static_cast<std::size_t>(lane)];
    return Bits == 8 ? code - 128 : code;
  }
  double decoded(int lane) const { return level(lane) * scale() + minimum(); }
};

std::vector<float> sine() {
  std::vector<float> numbers;
  for (int lane = 0; lane < 32; ++lane) numbers.push_back(static_cast<float>(std::sin(lane)));
  return numbers;
}

template <int Bits>
void expect_golden(double scale, double minimum, const std::vector<int>& levels) {
  const Group<Bits> group(sine());
  EXPECT_EQ(group.scale(), test::nearest_half(scale));
  EXPECT_EQ(group.minimum(), test::nearest_half(minimum));
  for (std::size_t lane = 0; lane < levels.size(); ++lane)
    EXPECT_EQ(group.level(static_cast<int>(lane)), levels[lane]) << Bits << " bits, lane " << lane;
}

TEST(Int, GoldenCodesOfASine) {
  expect_golden<2>(0.66353256, -0.9999902, {2, 3, 3, 2, 0, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2,
                                            1, 0, 0, 2, 3, 3, 1, 0, 0, 1, 3, 3, 2, 1, 0, 1});
  expect_golden<4>(0.13270651, -0.9999902,
                   {8, 14, 14, 9, 2,  0,  5, 12, 15, 11, 3,  0,  3,  11, 15, 12,
                    5, 0,  2,  9, 14, 14, 7, 1,  1,  7,  13, 15, 10, 3,  0,  4});
  expect_golden<8>(0.007873938, 0.0, {0, 107, 115, 18, -96, -122, -35, 83, 126, 52, -69, -127});
}

template <int Bits>
void expect_degenerate_groups() {
  for (const float number : {0.0F, 1.0F, -3.5F, 65504.0F, -65504.0F, 0.1F}) {
    for (const int width : {8, 16, 24, 32}) {
      const Group<Bits> group(std::vector<float>(static_cast<std::size_t>(width), number));
      if (Bits != 8 || number == 0.0F) {
        EXPECT_EQ(group.affine.scale.bits, 0U);
        for (int lane = 0; lane < width; ++lane) EXPECT_EQ(group.level(lane), 0);
      }
      const double tolerance = 1e-3 * std::abs(static_cast<double>(number));
      EXPECT_NEAR(group.decoded(width - 1), static_cast<double>(number), tolerance);
    }
  }
}

TEST(Int, EqualNumbersAreDecodedAsTheyWere) {
  expect_degenerate_groups<2>();
  expect_degenerate_groups<3>();
  expect_degenerate_groups<4>();
  expect_degenerate_groups<8>();
}

template <int Bits>
void expect_bounded_error() {
  test::Random random(2);
  constexpr double kMost = Bits == 8 ? 127 : (1 << Bits) - 1;
  for (int turn = 0; turn < 4000; ++turn) {
    const int width = 8 * random.between(1, 4);
    const double spread = std::ldexp(1.0, random.between(-22, 13));
    const double centre = random.chance(0.5) ? 0.0 : 1000.0 * random.normal();
    std::vector<float> numbers(static_cast<std::size_t>(width));
    for (float& number : numbers)
      number = static_cast<float>(centre + spread * (random.uniform() - 0.5));
    const Group<Bits> group(numbers);
    const auto [low, high] = std::minmax_element(numbers.begin(), numbers.end());
    const double bottom = Bits == 8 ? -kMost * group.scale() : group.minimum();
    const double below = bottom - static_cast<double>(*low);
    const double above = static_cast<double>(*high) - group.minimum() - kMost * group.scale();
    // the division is rounded to float
    const double step = 0.5 * group.scale() * (1.0 + 1e-5);
    const double bound = std::max({step, below, above}) + 1e-12;
    for (int lane = 0; lane < width; ++lane) {
      const double number = static_cast<double>(numbers[static_cast<std::size_t>(lane)]);
      ASSERT_LE(std::abs(group.decoded(lane) - number), bound) << turn << " lane " << lane;
    }
  }
}

TEST(Int, ErrorIsAtMostHalfAStepAndTheRoundingOfMetadata) {
  expect_bounded_error<2>();
  expect_bounded_error<3>();
  expect_bounded_error<4>();
  expect_bounded_error<8>();
}

template <int Bits>
double level_of_error() {
  test::Random random(3);
  double error = 0.0;
  double norm = 0.0;
  for (int turn = 0; turn < 8000; ++turn) {
    const std::vector<float> numbers = random.normals(32);
    const Group<Bits> group(numbers);
    for (int lane = 0; lane < 32; ++lane) {
      const double number = static_cast<double>(numbers[static_cast<std::size_t>(lane)]);
      error += std::pow(group.decoded(lane) - number, 2);
      norm += number * number;
    }
  }
  return error / norm;
}

TEST(Int, ErrorLevelsOnNormalNumbers) {
  EXPECT_NEAR(level_of_error<2>(), 0.1543, 0.03 * 0.1543);
  EXPECT_NEAR(level_of_error<3>(), 0.0281, 0.03 * 0.0281);
  EXPECT_NEAR(level_of_error<4>(), 0.00612, 0.03 * 0.00612);
  EXPECT_NEAR(level_of_error<8>(), 2.9e-5, 0.03 * 2.9e-5);
}

/// Found with g++ 12 on x86-64.
constexpr std::uint64_t kGoldenHash = 17423645103581647135U;

template <int Bits>
void mix_codes(std::uint64_t& hash) {
  test::Random random(4);
  for (int turn = 0; turn < 1000; ++turn) {
    std::vector<float> numbers(32);
    // sums of uniforms, since a libm may differ in the last bit
    for (float& number : numbers)
      number = static_cast<float>(8.0 * (random.uniform() + random.uniform() - 1.0));
    const Group<Bits> group(numbers);
    // 8 bits: in two's complement
    for (const std::uint8_t code : group.codes)
      hash = test::mix(hash ^ code ^ (Bits == 8 ? 128 : 0));
    hash = test::mix(hash ^ group.affine.scale.bits);
    hash = test::mix(hash ^ group.affine.minimum.bits);
  }
}

TEST(Int, CodesAreTheSameBitsInEveryBuild) {
  std::uint64_t hash = 0;
  mix_codes<2>(hash);
  mix_codes<3>(hash);
  mix_codes<4>(hash);
  mix_codes<8>(hash);
  EXPECT_EQ(hash, kGoldenHash) << hash;
}

// Two channels of 128 are twenty times as large: per token in groups of 64 they ruin the others,
// per channel they do not. Levels of plain numpy programs.
TEST(Int, KeysPerChannelBearOutliers) {
  test::Random random(5);
  constexpr int kTokens = 32;
  constexpr int kChannels = 128;
  std::vector<float> keys = random.normals(kTokens * kChannels);
  for (int token = 0; token < kTokens; ++token) {
    keys[static_cast<std::size_t>(token * kChannels + 17)] *= 20.0F;
    keys[static_cast<std::size_t>(token * kChannels + 90)] *= 20.0F;
  }
  const auto error = [&](bool per_channel) {
    double wrong = 0.0;
    double norm = 0.0;
    const int groups = per_channel ? kChannels : kTokens * kChannels / 32;
    for (int group = 0; group < groups; ++group) {
      std::vector<float> numbers;
      std::vector<bool> counts;
      for (int lane = 0; lane < 32; ++lane) {
        const int place = per_channel ? lane * kChannels + group : group * 32 + lane;
        numbers.push_back(keys[static_cast<std::size_t>(place)]);
        counts.push_back(place % kChannels != 17 && place % kChannels != 90);
      }
      const Group<4> codes(numbers);
      for (int lane = 0; lane < 32; ++lane) {
        if (!counts[static_cast<std::size_t>(lane)]) continue;
        const double number = static_cast<double>(numbers[static_cast<std::size_t>(lane)]);
        wrong += std::pow(codes.decoded(lane) - number, 2);
        norm += number * number;
      }
    }
    return wrong / norm;
  };
  EXPECT_NEAR(error(true), 0.0061, 0.1 * 0.0061);
  EXPECT_GT(error(false), 0.05);
}

}  // namespace
}  // namespace kvast

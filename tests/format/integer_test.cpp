// SPDX-License-Identifier: Apache-2.0
// Int<Bits>: golden codes, the largest error, degenerate groups, and the level of error on noise.
#include "kvast/format/integer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "kvast/core/rotation.h"
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
    const double least = static_cast<double>(*low);
    const double most = static_cast<double>(*high);
    // of exact metadata, and what rounding them to half can add; 6e-8 is the least half
    const double scale =
        Bits == 8 ? std::max(std::abs(least), std::abs(most)) / kMost : (most - least) / kMost;
    const double offset = Bits == 8 ? 0.0 : std::abs(least);
    const double rounding = 0x1p-11 * (offset + kMost * scale) + (1.0 + kMost) * 3e-8;
    // the division is rounded to float
    const double bound = 0.5 * scale * (1.0 + 1e-5) + rounding;
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

// The topmost level of a group that spans all halves is one, and stays one when what was decoded is
// encoded without the lowest numbers, as a repack does.
template <int Bits>
void expect_finite_extremes() {
  std::vector<float> numbers(32);
  for (std::size_t lane = 0; lane < 32; ++lane)
    numbers[lane] = lane % 2 == 0 ? -65504.0F : 65504.0F;
  for (int turn = 0; turn < 3; ++turn) {
    const Group<Bits> group(numbers);
    for (int lane = 0; lane < 32; ++lane) {
      ASSERT_LE(std::abs(group.decoded(lane)), 65504.0) << Bits << " bits, turn " << turn;
      ASSERT_NEAR(group.decoded(lane), static_cast<double>(numbers[static_cast<std::size_t>(lane)]),
                  65504.0 * 0.002);
    }
    for (std::size_t lane = 0; lane < 32; ++lane)
      numbers[lane] = static_cast<float>(group.decoded(static_cast<int>(lane | 1U)));
  }
}

TEST(Int, ExtremesStayFinite) {
  expect_finite_extremes<2>();
  expect_finite_extremes<3>();
  expect_finite_extremes<4>();
  expect_finite_extremes<8>();
}

enum class Way { per_token, per_token_rotated, per_channel };

/// Relative squared error of the other channels where two of 128 are twenty times as large. Tokens
/// are quantised in groups of 64, channels in groups of 32.
template <int Bits>
double error_beside_outliers(Way way) {
  constexpr int kTokens = 2048;
  constexpr int kChannels = 128;
  const Rotation rotation = Rotation::of(kChannels, 3);
  test::Random random(5);
  std::vector<float> keys = random.normals(kTokens * kChannels);
  for (std::size_t token = 0; token < kTokens; ++token) {
    keys[token * kChannels + 17] *= 20.0F;
    keys[token * kChannels + 90] *= 20.0F;
  }
  std::vector<float> stored = keys;
  const auto quantise = [&](std::size_t first, std::size_t stride, int width) {
    float numbers[64];
    std::uint8_t codes[64];
    Affine affine;
    for (int lane = 0; lane < width; ++lane)
      numbers[lane] = stored[first + static_cast<std::size_t>(lane) * stride];
    Int<Bits>::quantize(numbers, width, codes, affine);
    for (int lane = 0; lane < width; ++lane)
      stored[first + static_cast<std::size_t>(lane) * stride] =
          to_float(affine.scale) * codes[lane] + to_float(affine.minimum);
  };
  if (way == Way::per_channel) {
    for (std::size_t token = 0; token < kTokens; token += 32) {
      for (std::size_t channel = 0; channel < kChannels; ++channel)
        quantise(token * kChannels + channel, kChannels, 32);
    }
  } else {
    for (std::size_t token = 0; token < kTokens; ++token) {
      float* row = stored.data() + token * kChannels;
      if (way == Way::per_token_rotated) rotation.apply(row);
      quantise(token * kChannels, 1, 64);
      quantise(token * kChannels + 64, 1, 64);
      if (way == Way::per_token_rotated) rotation.undo(row);
    }
  }
  double wrong = 0.0;
  double norm = 0.0;
  for (std::size_t at = 0; at < keys.size(); ++at) {
    if (at % kChannels == 17 || at % kChannels == 90) continue;
    const auto number = static_cast<double>(keys[at]);
    wrong += std::pow(static_cast<double>(stored[at]) - number, 2);
    norm += number * number;
  }
  return wrong / norm;
}

// KIVI's argument: outliers that keep to their channels ruin their neighbours per token, a rotation
// saves much, and per channel they do no harm.
TEST(Int, OutliersInChannels) {
  const auto expect_level = [](double got, double wanted) {
    EXPECT_NEAR(got, wanted, 0.1 * wanted);
  };
  expect_level(error_beside_outliers<4>(Way::per_token), 0.182);
  expect_level(error_beside_outliers<4>(Way::per_token_rotated), 0.035);
  expect_level(error_beside_outliers<4>(Way::per_channel), 0.0061);
  expect_level(error_beside_outliers<2>(Way::per_token), 3.49);
  expect_level(error_beside_outliers<2>(Way::per_token_rotated), 0.907);
  expect_level(error_beside_outliers<2>(Way::per_channel), 0.155);
}

}  // namespace
}  // namespace kvast

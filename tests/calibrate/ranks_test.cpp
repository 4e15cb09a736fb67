// SPDX-License-Identifier: Apache-2.0
// Rank choice: by energy, by error, by bytes.
#include "kvast/calibrate/ranks.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/calibrate/made_up.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

/// Layers whose energies are given; the axes will do as directions.
Directions with(const std::vector<std::vector<double>>& heads) {
  Directions made{.heads = static_cast<int>(heads.size()),
                  .dim = static_cast<int>(heads[0].size()),
                  .energies = {},
                  .vectors = {}};
  for (const auto& head : heads) {
    made.energies.insert(made.energies.end(), head.begin(), head.end());
    for (int row = 0; row < made.dim; ++row) {
      for (int column = 0; column < made.dim; ++column)
        made.vectors.push_back(row == column ? 1.0F : 0.0F);
    }
  }
  return made;
}

/// `count` numbers of `height`, then `rest` of `low`.
std::vector<double> steps(int count, double height, int rest, double low) {
  std::vector<double> all(static_cast<std::size_t>(count), height);
  all.insert(all.end(), static_cast<std::size_t>(rest), low);
  return all;
}

Calibration one_layer(Directions keys, Directions values, int heads = 2) {
  const Shape shape{
      .query_heads = heads, .heads = heads, .head_dim = keys.dim, .value_dim = values.dim};
  return {.shapes = {shape},
          .before_rope = true,
          .tokens = 100,
          .layers = {{std::move(keys), std::move(values)}}};
}

TEST(RanksByEnergy, SmallestThatReachesTheShareRoundedUp) {
  // 10 of 1 and 14 of 0.1: 11.4 in all
  const Calibration calibration = one_layer(with({steps(10, 1.0, 14, 0.1)}),
                                            with({steps(4, 1.0, 12, 0.0), steps(9, 1.0, 7, 0.0)}));
  EXPECT_EQ(ranks_by_energy(calibration, 0.7)[0].keys, 8) << "8 of 11.4 are 0.70175";
  EXPECT_EQ(ranks_by_energy(calibration, 0.71)[0].keys, 16);
  EXPECT_EQ(ranks_by_energy(calibration, 0.929)[0].keys, 16) << "10.6 of 11.4 are 0.9298";
  EXPECT_EQ(ranks_by_energy(calibration, 1.0)[0].keys, 24);
  EXPECT_EQ(ranks_by_energy(calibration, 1.0)[0].values, 16) << "the head that needs 9 decides";
  EXPECT_EQ(ranks_by_energy(calibration, 0.5)[0].values, 8);
  // magnitudes: 10 of 1 and 14 of 0.316: 14.43 in all, so 16 have 11.9 / 14.43 = 0.8246
  EXPECT_EQ(ranks_by_energy(calibration, 0.82, Energy::magnitudes)[0].keys, 16);
  EXPECT_EQ(ranks_by_energy(calibration, 0.83, Energy::magnitudes)[0].keys, 24);
  EXPECT_EQ(ranks_by_energy(calibration, 0.83)[0].keys, 16);
}

TEST(RanksByEnergy, NothingAtAllKeepsTheLeast) {
  const Calibration calibration =
      one_layer(with({steps(0, 0.0, 16, 0.0)}), with({steps(0, 0.0, 16, 0.0)}));
  EXPECT_EQ(ranks_by_energy(calibration, 0.99)[0].keys, 8);
}

TEST(RanksByError, KeepsTheLastThatPassed) {
  const Calibration calibration =
      one_layer(with({steps(40, 1.0, 0, 0.0)}), with({steps(40, 1.0, 0, 0.0)}));
  std::vector<int> asked;
  const auto error = [&](int layer, LayerRanks ranks) {
    EXPECT_EQ(layer, 0);
    EXPECT_EQ(ranks.keys, ranks.values);
    asked.push_back(ranks.keys);
    return 0.01 * (40 - ranks.keys);
  };
  EXPECT_EQ(ranks_by_error(calibration, 0.2, error)[0].keys, 24) << "0.16 passes, 0.24 does not";
  EXPECT_EQ(asked, (std::vector<int>{32, 24}))
      << "equal ranks are not asked again, and 16 lies below 0.45 of 40";
  asked.clear();
  EXPECT_EQ(ranks_by_error(calibration, 0.1, error)[0].values, 32);
  EXPECT_EQ(asked, (std::vector<int>{32, 24}));
  EXPECT_EQ(ranks_by_error(calibration, 0.05, error)[0].keys, 40) << "none passes";
  EXPECT_EQ(ranks_by_error(calibration, 9.0, error)[0].keys, 24)
      << "the floor ends the search, and does not cost a step";
  EXPECT_EQ(ranks_by_error(calibration, 9.0, error, {.least_share = 0.0})[0].keys, 8);
  EXPECT_EQ(ranks_by_error(calibration, 9.0, [](int, LayerRanks) { return NAN; })[0].keys, 40);
}

TEST(RanksByBytes, SpendsWhereMostIsGained) {
  Calibration calibration = one_layer(with({steps(16, 1.0, 8, 0.01)}),   // needs 16
                                      with({steps(8, 1.0, 16, 0.01)}));  // needs 8
  const Calibration other =
      one_layer(with({steps(24, 1.0, 0, 0.0)}), with({steps(24, 1.0, 0, 0.0)}));
  calibration.shapes.push_back(other.shapes[0]);
  calibration.layers.push_back(other.layers[0]);
  const auto ranks = [&](int numbers) { return ranks_by_bytes(calibration, 2.0 * numbers); };
  // 2 heads: a step costs 16 numbers; the least is 4 times that
  EXPECT_EQ(ranks(64)[0].keys, 8);
  EXPECT_EQ(ranks(80)[0].keys, 16) << "8 of 16.08 gain most";
  EXPECT_EQ(ranks(80)[1].keys, 8);
  EXPECT_EQ(ranks(96)[1].keys, 16) << "then 8 of 24, keys first";
  EXPECT_EQ(ranks(112)[1].keys, 24) << "ties: the first of the list";
  EXPECT_EQ(ranks(112)[1].values, 8);
  EXPECT_EQ(ranks(127)[1].values, 8) << "not a whole step";
  EXPECT_EQ(ranks(144)[1].values, 24);
  EXPECT_EQ(ranks(144)[0].values, 8);
  EXPECT_EQ(ranks(1 << 20)[0].values, 24);
  EXPECT_EQ(ranks_by_bytes(calibration, 160.0, 1.0)[1].values, 24);
  EXPECT_EQ(ranks_by_bytes(calibration, 160.0)[0].keys, 16);
}

TEST(RanksByBytes, NeverSpendsMoreThanItHas) {
  const Shape shape{.layers = 5, .query_heads = 3, .heads = 3, .head_dim = 40, .value_dim = 24};
  const Calibration calibration = test::random_calibration(shape, true);
  for (int numbers = 5 * 3 * 16; numbers < 1100; numbers += 7) {
    std::int64_t spent = 0;
    for (const LayerRanks& layer : ranks_by_bytes(calibration, 2.0 * numbers))
      spent += 3 * (layer.keys + layer.values);
    ASSERT_LE(spent, numbers);
    ASSERT_GT(spent, std::min(numbers, 5 * 3 * 64) - 24) << "less than a step is left";
  }
}

TEST(Ranks, ImpossibleOnesAreRefusedByName) {
  const Calibration calibration = test::random_calibration({.layers = 2, .head_dim = 32}, true);
  for (const int rank : {0, -8, 12, 40})
    expect_refused([&] { (void)uniform_ranks(calibration, rank); },
                   {"rank is " + std::to_string(rank), "[8, 32]"});
  EXPECT_EQ(uniform_ranks(calibration, 32)[1].values, 32);
  for (const double share : {0.0, -1.0, 1.5, static_cast<double>(NAN)})
    expect_refused([&] { (void)ranks_by_energy(calibration, share); }, {"energy is", "(0, 1]"});
  const auto none = [](int, LayerRanks) { return 0.0; };
  expect_refused([&] { (void)ranks_by_error(calibration, 0.0, none); }, {"budget is 0"});
  expect_refused([&] { (void)ranks_by_error(calibration, 0.1, none, {.step = 0.0}); },
                 {"step is 0"});
  expect_refused([&] { (void)ranks_by_error(calibration, 0.1, none, {.step = 1e-9}); },
                 {"step is 1e-09"});
  expect_refused(
      [&] {
        (void)ranks_by_error(calibration, 0.1, none, {.least_share = static_cast<double>(NAN)});
      },
      {"least_share is nan"});
  expect_refused([&] { (void)ranks_by_bytes(calibration, 63.0); }, {"63 bytes", "31", "32"});
  expect_refused([&] { (void)ranks_by_bytes(calibration, static_cast<double>(NAN)); },
                 {"bytes is nan"});
}

}  // namespace
}  // namespace kvast

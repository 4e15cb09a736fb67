// SPDX-License-Identifier: Apache-2.0
// Directions of weights: the leading ones project best, and ranks fall over the depth as LoRC says.
#include "kvast/calibrate/weights.h"

#include <gtest/gtest.h>

#include "tests/calibrate/made_up.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

constexpr int kHidden = 40;

/// [heads * dim, hidden] whose rows of each head span `rank` dimensions only, and that basis.
struct LowWeights {
  std::vector<float> numbers;
  std::vector<std::vector<double>> bases;  ///< [heads][dim, rank]
};

LowWeights low_weights(test::Random& random, int heads, int dim, int rank) {
  LowWeights made;
  for (int head = 0; head < heads; ++head) {
    made.bases.push_back(test::random_basis(random, dim, rank));
    const auto columns = test::vectors_in(random, made.bases.back(), dim, rank, kHidden);
    for (int row = 0; row < dim; ++row) {
      for (int at = 0; at < kHidden; ++at)
        made.numbers.push_back(columns[static_cast<std::size_t>(at * dim + row)]);
    }
  }
  return made;
}

/// Largest difference of U U^T and B B^T, with U the leading `rank` directions.
double projector_error(const Directions& found, int base, const std::vector<double>& basis,
                       int rank) {
  double worst = 0.0;
  for (int row = 0; row < found.dim; ++row) {
    for (int column = 0; column < found.dim; ++column) {
      double sum = 0.0;
      for (int at = 0; at < rank; ++at) {
        const auto vector = [&](int where) {
          return static_cast<double>(
              found.vectors[static_cast<std::size_t>((base * found.dim + where) * found.dim + at)]);
        };
        sum +=
            vector(row) * vector(column) - basis[static_cast<std::size_t>(row * rank + at)] *
                                               basis[static_cast<std::size_t>(column * rank + at)];
      }
      worst = std::max(worst, std::abs(sum));
    }
  }
  return worst;
}

TEST(CalibrateWeights, FindsTheSpaceOfEachHeadsRows) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 24, .value_dim = 16};
  test::Random random(5);
  const LowWeights keys = low_weights(random, 2, 24, 8);
  const LowWeights values = low_weights(random, 2, 16, 8);
  const ProjectionWeights weights{keys.numbers, values.numbers, kHidden};
  const WeightCalibration found = calibrate_weights(shape, {&weights, 1});
  EXPECT_EQ(found.calibration.tokens, 0);
  EXPECT_TRUE(found.calibration.before_rope);
  const LayerDirections& layer = found.calibration.layers[0];
  ASSERT_EQ(layer.keys.heads, 2);
  ASSERT_EQ(layer.values.heads, 2);
  for (int head = 0; head < 2; ++head) {
    const auto at = static_cast<std::size_t>(head);
    EXPECT_LE(projector_error(layer.keys, head, keys.bases[at], 8), 1e-6);
    EXPECT_LE(projector_error(layer.values, head, values.bases[at], 8), 1e-6);
    EXPECT_GT(layer.keys.energy(head, 7), 1e3 * layer.keys.energy(head, 8));
  }
  // energies are what white inputs give: their sum is the squared norm of the head's rows
  double sum = 0.0;
  double norm = 0.0;
  for (int at = 0; at < 24; ++at) sum += layer.keys.energy(1, at);
  for (std::size_t at = 24 * kHidden; at < keys.numbers.size(); ++at)
    norm += static_cast<double>(keys.numbers[at]) * static_cast<double>(keys.numbers[at]);
  EXPECT_NEAR(sum, norm, 1e-9 * norm);
  const WeightCalibration shared =
      calibrate_weights(shape, {&weights, 1}, {.keys = Sharing::layer, .values = Sharing::layer});
  EXPECT_EQ(shared.calibration.layers[0].keys.heads, 1);
  double both = 0.0;
  for (const float weight : keys.numbers)
    both += static_cast<double>(weight) * static_cast<double>(weight);
  double all = 0.0;
  for (int at = 0; at < 24; ++at) all += shared.calibration.layers[0].keys.energy(0, at);
  EXPECT_NEAR(all, both, 1e-9 * both);
}

TEST(CalibrateWeights, ConditionsAreOfAllHeadsTogether) {
  const Shape shape{.query_heads = 2, .heads = 2, .head_dim = 8};
  // diagonal: singular values 2 to 17 of keys, 1 of values
  std::vector<float> keys(16 * 16, 0.0F);
  std::vector<float> values(16 * 16, 0.0F);
  for (std::size_t at = 0; at < 16; ++at) {
    keys[at * 17] = static_cast<float>(at + 2);
    values[at * 17] = -1.0F;
  }
  const ProjectionWeights weights{keys, values, 16};
  const WeightCalibration found = calibrate_weights(shape, {&weights, 1});
  ASSERT_EQ(found.log_conditions.size(), 1U);
  EXPECT_NEAR(found.log_conditions[0], std::log(17.0 / 2.0), 1e-9);
}

TEST(CalibrateWeights, BadWeightsAreRefused) {
  const Shape shape{.query_heads = 1, .heads = 1, .head_dim = 8};
  const std::vector<float> good(8 * 16, 1.0F);
  const auto run = [&](std::vector<float> keys, int hidden, int layers) {
    const std::vector<ProjectionWeights> all(static_cast<std::size_t>(layers),
                                             {keys, good, hidden});
    (void)calibrate_weights(shape, all);
  };
  run(good, 16, 1);
  expect_refused([&] { run(good, 16, 2); }, {"2 layers", "1"});
  expect_refused([&] { run(good, 15, 1); }, {"keys of layer 0", "128", "120"});
  expect_refused([&] { run(good, 0, 1); }, {"keys of layer 0"});
  std::vector<float> bad = good;
  bad[77] = NAN;
  expect_refused([&] { run(bad, 16, 1); }, {"keys of layer 0", "finite"});
}

WeightCalibration with_conditions(const std::vector<double>& logs, int dim = 64) {
  WeightCalibration made;
  Shape shape{.layers = static_cast<int>(logs.size()), .head_dim = dim};
  made.calibration = test::random_calibration(shape, true);
  made.log_conditions = logs;
  return made;
}

TEST(ProgressiveRanks, FallFromMostToLeast) {
  const auto weights = with_conditions({2.0, 2.0, 2.0, 2.0, 2.0});
  // products 10, 8, 6, 4, 2: fallen by 0, 1/4, 1/2, 3/4, 1
  const int wanted[] = {64, 56, 40, 32, 16};  // 64, 52, 40, 28, 16
  const Ranks ranks = progressive_ranks(weights, 64, 16);
  ASSERT_EQ(ranks.size(), 5U);
  for (std::size_t layer = 0; layer < 5; ++layer) {
    EXPECT_EQ(ranks[layer].keys, wanted[layer]);
    EXPECT_EQ(ranks[layer].values, wanted[layer]);
  }
  for (const LayerRanks& same : progressive_ranks(weights, 24, 24)) EXPECT_EQ(same.keys, 24);
  EXPECT_EQ(progressive_ranks(with_conditions({3.0}), 32, 8)[0].keys, 32) << "one layer";
  EXPECT_EQ(progressive_ranks(with_conditions({0.0, 0.0}), 32, 8)[1].keys, 32) << "no fall";
}

TEST(ProgressiveRanks, AreMonotone) {
  test::Random random(2);
  for (int turn = 0; turn < 30; ++turn) {
    std::vector<double> logs;
    for (int layer = 0; layer < random.between(2, 12); ++layer)
      logs.push_back(std::abs(random.normal()));
    const Ranks ranks = progressive_ranks(with_conditions(logs), 56, 8);
    EXPECT_EQ(ranks.front().keys, 56);
    EXPECT_EQ(ranks.back().keys, 8);
    for (std::size_t layer = 1; layer < ranks.size(); ++layer)
      EXPECT_LE(ranks[layer].keys, ranks[layer - 1].keys);
  }
}

TEST(ProgressiveRanks, BadSettingsAreRefused) {
  const auto weights = with_conditions({1.0, 1.0});
  expect_refused([&] { (void)progressive_ranks(weights, 72, 8); }, {"rank is 72", "[8, 64]"});
  expect_refused([&] { (void)progressive_ranks(weights, 32, 40); }, {"least is 40", "most = 32"});
  expect_refused([&] { (void)progressive_ranks(weights, 32, 0); }, {"least is 0"});
  auto bad = weights;
  bad.log_conditions[1] = NAN;
  expect_refused([&] { (void)progressive_ranks(bad, 32, 8); }, {"log_conditions[1]", "nan"});
  bad.log_conditions.pop_back();
  expect_refused([&] { (void)progressive_ranks(bad, 32, 8); }, {"1 layers", "2"});
}

}  // namespace
}  // namespace kvast

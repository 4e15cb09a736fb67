// SPDX-License-Identifier: Apache-2.0
// Second moments and their directions: those of the stacked vectors, however they arrived.
#include "kvast/calibrate/moments.h"

#include <gtest/gtest.h>

#include "kvast/calibrate/finalize.h"
#include "tests/calibrate/made_up.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

constexpr int kTokens = 700;
const Shape kShape{.query_heads = 6, .heads = 2, .head_dim = 24, .value_dim = 16};

/// Vectors with directions of very different strength, [tokens, heads, dim].
std::vector<float> uneven(test::Random& random, int tokens, int heads, int dim) {
  std::vector<float> numbers = random.normals(static_cast<std::size_t>(tokens * heads * dim));
  for (std::size_t at = 0; at < numbers.size(); ++at)
    numbers[at] *= std::pow(0.8F, static_cast<float>(at % static_cast<std::size_t>(dim)));
  return numbers;
}

struct Text {
  std::vector<float> keys, queries, values;
  explicit Text(std::uint64_t seed = 5, int tokens = kTokens) {
    test::Random random(seed);
    keys = uneven(random, tokens, kShape.heads, kShape.head_dim);
    queries = uneven(random, tokens, kShape.query_heads, kShape.head_dim);
    values = uneven(random, tokens, kShape.heads, kShape.values());
  }
};

Calibration calibrate(const Text& text, CalibrationOptions options, int chunk) {
  Moments moments(kShape, options);
  const auto from = [](const std::vector<float>& numbers, int token, int width) {
    return std::span<const float>(numbers).subspan(static_cast<std::size_t>(token * width));
  };
  for (int token = 0; token < kTokens; token += chunk)
    moments.add(0, std::min(chunk, kTokens - token), from(text.keys, token, 2 * 24),
                from(text.queries, token, 6 * 24), from(text.values, token, 2 * 16));
  return finalize(moments);
}

/// Rows of some heads of [tokens, heads, dim], stacked.
Eigen::MatrixXd stacked(const std::vector<float>& numbers, int heads, int dim, int first, int end) {
  Eigen::MatrixXd rows(kTokens * (end - first), dim);
  Eigen::Index row = 0;
  for (int token = 0; token < kTokens; ++token) {
    for (int head = first; head < end; ++head, ++row) {
      for (int at = 0; at < dim; ++at)
        rows(row, at) = static_cast<double>(
            numbers[static_cast<std::size_t>((token * heads + head) * dim + at)]);
    }
  }
  return rows;
}

/// The leading directions span what the stacked vectors' right singular vectors do, and their
/// energies are those of the singular values.
void expect_svd(const Directions& found, int base, const Eigen::MatrixXd& rows) {
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(rows, Eigen::ComputeThinV);
  Eigen::MatrixXd vectors(found.dim, found.dim);
  for (int row = 0; row < found.dim; ++row) {
    for (int at = 0; at < found.dim; ++at)
      vectors(row, at) = static_cast<double>(
          found.vectors[static_cast<std::size_t>((base * found.dim + row) * found.dim + at)]);
  }
  for (int rank = 1; rank <= found.dim; ++rank) {
    double worst = 0.0;  // of the projectors' entries
    for (int row = 0; row < found.dim; ++row) {
      for (int column = 0; column < found.dim; ++column) {
        double apart = 0.0;
        for (int at = 0; at < rank; ++at)
          apart += svd.matrixV()(row, at) * svd.matrixV()(column, at) -
                   vectors(row, at) * vectors(column, at);
        worst = std::max(worst, std::abs(apart));
      }
    }
    EXPECT_LE(worst, 1e-6) << "rank " << rank;
    const double energy = std::pow(svd.singularValues()[rank - 1], 2) / kTokens;
    EXPECT_NEAR(found.energy(base, rank - 1) / energy, 1.0, 1e-9);
  }
}

TEST(Moments, DirectionsAreSingularVectorsOfTheStackedRows) {
  const Text text;
  const Calibration found =
      calibrate(text, {.before_rope = true, .keys = Sharing::layer, .values = Sharing::head}, 97);
  ASSERT_EQ(found.layers[0].keys.heads, 1);
  ASSERT_EQ(found.layers[0].values.heads, 2);
  EXPECT_TRUE(found.before_rope);
  EXPECT_EQ(found.tokens, kTokens);
  expect_svd(found.layers[0].keys, 0, stacked(text.keys, 2, 24, 0, 2));
  for (int head = 0; head < 2; ++head)
    expect_svd(found.layers[0].values, head, stacked(text.values, 2, 16, head, head + 1));
}

TEST(Moments, WithoutRotationQueriesShareTheKeysBasis) {
  const Text text;
  const Calibration found =
      calibrate(text, {.before_rope = false, .keys = Sharing::head, .values = Sharing::layer}, 300);
  ASSERT_EQ(found.layers[0].values.heads, 1);
  expect_svd(found.layers[0].values, 0, stacked(text.values, 2, 16, 0, 2));
  for (int head = 0; head < 2; ++head) {
    const Eigen::MatrixXd keys = stacked(text.keys, 2, 24, head, head + 1);
    const Eigen::MatrixXd queries = stacked(text.queries, 6, 24, 3 * head, 3 * head + 3);
    Eigen::MatrixXd both(keys.rows() + queries.rows(), 24);
    both << keys, queries;
    expect_svd(found.layers[0].keys, head, both);
  }
}

TEST(Moments, HowTokensArriveChangesNothing) {
  const Text text;
  const Calibration whole = calibrate(text, {}, kTokens);
  const Calibration parts = calibrate(text, {}, 1);
  for (std::size_t at = 0; at < whole.layers[0].keys.vectors.size(); ++at)
    EXPECT_NEAR(whole.layers[0].keys.vectors[at], parts.layers[0].keys.vectors[at], 1e-6F);
}

TEST(Moments, TrueRankIsFound) {
  test::Random random(6);
  const auto basis = test::random_basis(random, 24, 5);
  const auto keys = test::vectors_in(random, basis, 24, 5, 2 * kTokens);
  const Text text;
  Moments moments(kShape, {});
  moments.add(0, kTokens, std::span(keys), {}, std::span(text.values));
  const Calibration found = finalize(moments);
  EXPECT_GT(found.layers[0].keys.energy(0, 4), 0.1);
  EXPECT_LT(found.layers[0].keys.energy(0, 5), 1e-10);
}

TEST(Moments, BadInputIsRefusedAndChangesNothing) {
  Text text;
  Moments moments(kShape, {.before_rope = false});
  const auto add = [&](int layer, int tokens) {
    moments.add(layer, tokens, std::span<const float>(text.keys),
                std::span<const float>(text.queries), std::span<const float>(text.values));
  };
  add(0, 23);
  const Eigen::MatrixXd before = moments.keys(0)[0];
  expect_refused([&] { (void)finalize(moments); }, {"finalize", "23 tokens", "24"});
  expect_refused([&] { add(1, 4); }, {"layer is 1"});
  expect_refused([&] { add(0, 0); }, {"tokens is 0"});
  expect_refused([&] { add(0, kTokens + 1); }, {"calibrate: keys", "elements"});
  expect_refused(
      [&] {
        moments.add(0, 1, std::span<const float>(text.keys), {},
                    std::span<const float>(text.values));
      },
      {"calibrate: queries", "null"});
  for (std::vector<float>* numbers : {&text.keys, &text.queries, &text.values}) {
    for (const float bad : {NAN, INFINITY}) {
      const float good = std::exchange(numbers->back(), bad);
      expect_refused([&] { add(0, kTokens); }, {"calibrate: ", "token 699", "finite"});
      numbers->back() = good;
    }
  }
  EXPECT_EQ(moments.tokens(0), 23);
  EXPECT_EQ(before, moments.keys(0)[0]);
  add(0, 1);
  EXPECT_EQ(finalize(moments).tokens, 24);
}

}  // namespace
}  // namespace kvast

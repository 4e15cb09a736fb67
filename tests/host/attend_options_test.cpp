// SPDX-License-Identifier: Apache-2.0
// Every field of AttendOptions, alone and together, against the reference.
#include "kvast/core/attend_options.h"

#include <gtest/gtest.h>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

using test::Duel;

constexpr int kLongest = 400;

enum Field : unsigned {
  kScale = 1,
  kSoftcap = 2,
  kWindow = 4,
  kSinks = 8,
  kBias = 16,
  kOneRow = 32
};

/// Prompt, chunks, decode steps and several tokens at once, with the chosen fields.
void expect_equal(unsigned fields, const Shape& shape) {
  test::Random random(fields + 1);
  const std::vector<float> sinks = random.normals(static_cast<std::size_t>(shape.query_heads), 2.0);
  const std::vector<float> bias =
      random.normals(static_cast<std::size_t>(shape.query_heads * kLongest), 2.0);
  AttendOptions options;
  test::ReferenceRules rules;
  if (fields & kScale) rules.scale = static_cast<double>(options.scale = 0.31F);
  if (fields & kSoftcap) rules.softcap = static_cast<double>(options.softcap = 2.5F);
  if (fields & kWindow) rules.window = options.window = 37;
  if (fields & kSinks) {
    options.sinks = sinks;
    rules.sinks = sinks.data();
  }
  if (fields & (kBias | kOneRow)) {
    rules.bias_stride = fields & kOneRow ? 0 : kLongest;
    options.bias = {.data = bias.data(), .head_stride = rules.bias_stride, .positions = kLongest};
    rules.bias = bias.data();
  }
  Duel<Full, Dense<float>> duel(shape, {}, {}, {}, fields + 100);
  for (const int tokens : {130, 1, 1, 9, 70, 1}) duel.run({.tokens = tokens}, options, rules);
  EXPECT_LE(duel.worst, 1e-5) << "fields " << fields;
  EXPECT_LE(duel.worst_lse, 3e-5) << "fields " << fields;
}

TEST(AttendOptions, EveryCombination) {
  const Shape shape{.query_heads = 6, .heads = 2, .head_dim = 40};
  for (unsigned fields = 0; fields < 32; ++fields) expect_equal(fields, shape);
  expect_equal(kOneRow, shape);
  expect_equal(kOneRow | kSoftcap | kWindow | kSinks, shape);
}

TEST(AttendOptions, EveryCombinationWithALargeGroup) {
  const Shape shape{.query_heads = 71, .heads = 1, .head_dim = 16};
  for (const unsigned fields : {31U, 4U, 8U, 16U, 12U}) expect_equal(fields, shape);
}

TEST(AttendOptions, WindowsOfEverySize) {
  for (const int window : {1, 2, 31, 32, 33, 64, 10000}) {
    Duel<Full, Dense<float>> duel({.query_heads = 3, .heads = 1, .head_dim = 32}, {}, {});
    const test::ReferenceRules rules{.window = window};
    for (const int tokens : {100, 1, 1, 5}) duel.run({.tokens = tokens}, {.window = window}, rules);
    EXPECT_LE(duel.worst, 1e-5) << window;
  }
}

TEST(AttendOptions, SinksAloneMayTakeAlmostAll) {
  const std::vector<float> sinks{40.0F, -1000.0F};
  Duel<Full, Dense<float>> duel({.query_heads = 2, .heads = 1, .head_dim = 32}, {}, {});
  const test::ReferenceRules rules{.sinks = sinks.data()};
  for (const int tokens : {60, 1}) duel.run({.tokens = tokens}, {.sinks = sinks}, rules);
  EXPECT_LE(duel.worst, 1e-4);
  EXPECT_LE(duel.worst_lse, 1e-5);
}

TEST(AttendOptions, VeryNegativeBiasHidesATokenInAnySplit) {
  std::vector<float> bias(2200, 0.0F);
  std::fill_n(bias.begin(), 1100, -1e6F);  // the whole first half, first in every running maximum
  Duel<Full, Dense<float>> duel({.query_heads = 2, .heads = 1, .head_dim = 32}, {}, {});
  const test::ReferenceRules rules{.bias = bias.data()};
  const AttendOptions options{.bias = {.data = bias.data(), .positions = 2200}};
  for (const int tokens : {2000, 1, 1}) duel.run({.tokens = tokens}, options, rules, 2);
  EXPECT_LE(duel.worst_lse, 0.13) << "1e6 has a step of 1/16 in float";
  Duel<Full, Dense<float>> late({.query_heads = 2, .heads = 1, .head_dim = 32}, {}, {});
  late.run({.tokens = 2000}, {}, {}, 2);
  late.run({}, options, rules);
  EXPECT_LE(late.worst, 1e-5);
  EXPECT_LE(late.worst_lse, 1e-5);
}

// Two caches that hold the halves of a sequence give the whole by their log-sum-exp.
TEST(AttendOptions, LogSumExpMergesPartialResults) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 32};
  BlockPool pool;
  KVCache<Full, Dense<float>> whole(shape, {}, {}, pool);
  KVCache<Full, Dense<float>> left(shape, {}, {}, pool);
  KVCache<Full, Dense<float>> right(shape, {}, {}, pool);
  test::Random random(9);
  const auto keys = random.normals(101 * 64);
  const auto values = random.normals(101 * 64);
  const auto queries = random.normals(128, 2.0);
  const auto attend = [&](KVCache<Full, Dense<float>>& cache, std::vector<int> positions,
                          std::vector<float>& lse) {
    const auto first = static_cast<std::size_t>(positions.front());
    const auto count = static_cast<std::size_t>(positions.size());
    auto pass = cache.begin({.tokens = static_cast<int>(count), .positions = positions});
    std::vector<float> output(count * 128);
    std::vector<float> all(count * 4);
    std::vector<float> repeated;
    for (std::size_t token = 0; token < count; ++token)
      repeated.insert(repeated.end(), queries.begin(), queries.end());
    pass->append(0, keys.data() + first * 64, values.data() + first * 64);
    pass->attend(0, repeated.data(), output.data(), {.log_sum_exp = all});
    pass->commit(0);
    lse.assign(all.end() - 4, all.end());
    return std::vector<float>(output.end() - 128, output.end());
  };
  std::vector<int> all(101);
  std::iota(all.begin(), all.end(), 0);
  std::vector<float> lse, lse_left, lse_right;
  const auto wanted = attend(whole, all, lse);
  const auto one = attend(left, {all.begin(), all.begin() + 40}, lse_left);
  const auto two = attend(right, {all.begin() + 40, all.end()}, lse_right);
  for (std::size_t head = 0; head < 4; ++head) {
    const float share = 1.0F / (1.0F + std::exp(lse_right[head] - lse_left[head]));
    EXPECT_NEAR(lse[head], lse_left[head] - std::log(share), 1e-5);
    for (std::size_t dim = head * 32; dim < head * 32 + 32; ++dim)
      EXPECT_NEAR(wanted[dim], share * one[dim] + (1.0F - share) * two[dim], 1e-5);
  }
}

}  // namespace
}  // namespace kvast

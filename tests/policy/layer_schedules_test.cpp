// SPDX-License-Identifier: Apache-2.0
// Budgets by layer that follow a prompt or its attention, and a prompt that sets its own budget.
#include "kvast/policy/layer_schedules.h"

#include <limits>
#include <numeric>

#include "tests/policy/simulation.h"
#include "tests/support/random.h"

namespace kvast::test {
namespace {

TEST(PyramidInfer, RatiosCompound) {
  const LayerBudgets budgets = pyramid_infer(30, 1000, 0.9);
  int kept = 1000;
  for (int layer = 0; layer < 30; ++layer) {
    const double part = 0.1 * (std::cos(3.14159265358979 * layer / 30) + 1) / 2 + 0.9;
    kept = std::max(static_cast<int>(kept * part), 64);  // each layer's count is whole
    EXPECT_EQ(budgets.tokens[static_cast<std::size_t>(layer)], kept);
  }
  EXPECT_EQ(budgets.tokens[0], 1000);
  const LayerBudgets slow = pyramid_infer(4, 1000, 0.9, 2);
  EXPECT_EQ(slow.tokens[1], slow.tokens[0]);
  EXPECT_LT(slow.tokens[2], slow.tokens[1]);
  EXPECT_EQ(pyramid_infer(30, 50).tokens[29], 50) << "never below 64, or the prompt";
}

// PerLayerBudget takes no layer without tokens.
TEST(PrefixKV, EveryLayerKeepsATokenAtLeast) {
  const std::vector<std::vector<float>> masses{{0.0F, 0.0F, 0.0F}, {1.0F, 1.0F, 1.0F}};
  EXPECT_EQ(prefix_kv(masses, 1).tokens[0], 1);
  EXPECT_EQ(prefix_kv(masses, 1).tokens[1], 1);
  EXPECT_EQ(prefix_kv(masses, 2).tokens[0], 1);
  EXPECT_EQ(prefix_kv(masses, 2).tokens[1], 3);
}

// The level of retained mass is as equal as whole tokens allow: no layer's last token has a higher
// level than any layer's next one.
TEST(PrefixKV, OneLevelForAllLayersAndAnExactTotal) {
  Random random(17);
  std::vector<std::vector<float>> masses(6);
  for (std::size_t layer = 0; layer < masses.size(); ++layer) {
    for (int token = 0; token < 200; ++token)
      masses[layer].push_back(
          static_cast<float>(std::pow(random.uniform(), 1.0 + 4.0 * static_cast<double>(layer))));
  }
  const LayerBudgets budgets = prefix_kv(masses, 70);
  EXPECT_EQ(std::accumulate(std::begin(budgets.tokens), std::end(budgets.tokens), 0), 6 * 70);
  double highest_last = 0.0;
  double lowest_next = 1.0;
  for (std::size_t layer = 0; layer < masses.size(); ++layer) {
    std::vector<float> sorted = masses[layer];
    std::sort(sorted.rbegin(), sorted.rend());
    const double total = std::accumulate(sorted.begin(), sorted.end(), 0.0);
    const auto kept = static_cast<std::ptrdiff_t>(budgets.tokens[layer]);
    ASSERT_GE(kept, 1);
    highest_last = std::max(
        highest_last, std::accumulate(sorted.begin(), sorted.begin() + kept - 1, 0.0) / total);
    lowest_next =
        std::min(lowest_next, std::accumulate(sorted.begin(), sorted.begin() + kept, 0.0) / total);
  }
  EXPECT_LE(highest_last, lowest_next + 1e-9);
  EXPECT_GT(budgets.tokens[0], budgets.tokens[5]) << "flat attention needs more tokens";
}

TEST(DBudgetKV, DropsTheMiddleAsFarAsTheThresholdAllows) {
  const auto kept = [](float threshold) {
    test::Run<DBudgetKV, External> run(conversation_script(61),
                                       {.threshold = threshold, .sinks = 2, .recent = 5});
    run.pass({.tokens = 80, .last_of_prompt = true});
    return run.kept();
  };
  EXPECT_EQ(kept(0.0F).size(), 80U);
  EXPECT_EQ(kept(1.0F).size(), 7U);
  const std::vector<int> some = kept(0.2F);
  ASSERT_GT(some.size(), 7U);
  ASSERT_LT(some.size(), 80U);
  // one gap, around the middle
  int gaps = 0;
  for (std::size_t at = 1; at < some.size(); ++at) {
    if (some[at] == some[at - 1] + 1) continue;
    ++gaps;
    EXPECT_NEAR((some[at] + some[at - 1]) / 2.0, 39.5, 1.0);
  }
  EXPECT_EQ(gaps, 1);
}

// Ten tokens of one square each: the root of what is dropped may be half of the root of all, so
// two and a half of ten.
TEST(DBudgetKV, TheThresholdIsOfNormsNotOfSquares) {
  std::vector<Token> tokens(10);
  std::vector<DBudgetKV::State> states(10);
  for (int at = 0; at < 10; ++at) {
    tokens[static_cast<std::size_t>(at)] = {.position = at, .age = 9 - at};
    states[static_cast<std::size_t>(at)].squares = 1.0F;
  }
  const auto dropped = [&](float threshold) {
    std::vector<float> ranks(10);
    const DBudgetKV policy{.threshold = threshold, .sinks = 1, .recent = 1};
    HeadView<DBudgetKV::State> view;
    view.tokens = tokens;
    view.states = states;
    policy.rank_head(view, ranks);
    std::vector<int> places;
    for (int at = 0; at < 10; ++at)
      if (ranks[static_cast<std::size_t>(at)] == kDrop) places.push_back(at);
    return places;
  };
  EXPECT_EQ(dropped(0.5F), (std::vector<int>{4, 5}));
  EXPECT_EQ(dropped(0.3F), (std::vector<int>{}));
  EXPECT_EQ(dropped(0.8F), (std::vector<int>{2, 3, 4, 5, 6, 7}));
}

TEST(LayerScheduleSettings, ImpossibleOnesAreRefusedByName) {
  expect_refused([] { (void)pyramid_infer(0, 10); }, {"pyramid_infer", "layers", "0"});
  expect_refused([] { (void)pyramid_infer(4, 10, 1.5); }, {"pyramid_infer", "p is 1.5"});
  const std::vector<std::vector<float>> masses(2, std::vector<float>(3, 1.0F));
  expect_refused([&] { (void)prefix_kv(masses, 4); }, {"prefix_kv", "mean is 4", "6 tokens"});
  expect_refused([&] { (void)prefix_kv(masses, 0); }, {"prefix_kv", "mean is 0"});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -1.0F}) {
    std::vector<std::vector<float>> spoilt(2, std::vector<float>(40, 1.0F));
    for (std::size_t at = 3; at < 40; at += 5) spoilt[1][at] = bad;
    expect_refused([&] { (void)prefix_kv(spoilt, 4); }, {"prefix_kv", "masses of layer 1"});
  }
  expect_policy_refused(DBudgetKV{.threshold = -1.0F}, {"DBudgetKV.threshold", "-1"});
  expect_policy_refused(DBudgetKV{.recent = 0}, {"DBudgetKV.recent", "0"});
}

}  // namespace
}  // namespace kvast::test

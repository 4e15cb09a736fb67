// SPDX-License-Identifier: Apache-2.0
// Budgets that heads share and that layers differ in: exact totals, bytes that follow, and
// refusals.
#include <limits>
#include <numeric>

#include "tests/policy/simulation.h"
#include "tests/support/random.h"

namespace kvast::test {
namespace {

/// Tokens per head and layer after a prompt of the conversation script.
template <class Policy>
std::vector<std::vector<int>> counts_after_prompt(Policy policy, Shape shape, int prompt) {
  test::Run<Policy, Dense<float>> run(conversation_script(41, shape), policy);
  run.pass({.tokens = prompt, .last_of_prompt = true});
  std::vector<std::vector<int>> counts;
  for (int layer = 0; layer < shape.layers; ++layer) {
    counts.emplace_back();
    for (int head = 0; head < shape.heads; ++head)
      counts.back().push_back(run.cache().tokens(layer, head));
  }
  return counts;
}
int sum(const std::vector<int>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0);
}

TEST(Apportion, LosesAndMakesNothing) {
  Random random(5);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto count = static_cast<std::size_t>(random.between(1, 9));
    std::vector<double> shares;
    std::vector<int> most;
    for (std::size_t at = 0; at < count; ++at) {
      shares.push_back(random.chance(0.2) ? 0.0 : random.between(0, 1000) / 7.0);
      most.push_back(random.between(0, 40));
    }
    const int total = random.between(0, 200);
    std::vector<int> parts(count);
    apportion(shares, total, most, parts);
    EXPECT_EQ(sum(parts), std::min(total, sum(most)));
    for (std::size_t at = 0; at < count; ++at) {
      EXPECT_GE(parts[at], 0);
      EXPECT_LE(parts[at], most[at]);
    }
  }
}

TEST(Apportion, RoundsByLargestRemainder) {
  std::vector<int> parts(3);
  apportion(std::vector<double>{1.0, 1.0, 1.0}, 10, std::vector<int>{99, 99, 99}, parts);
  EXPECT_EQ(parts, (std::vector<int>{4, 3, 3}));
  apportion(std::vector<double>{5.2, 3.3, 1.5}, 10, std::vector<int>{99, 99, 99}, parts);
  EXPECT_EQ(parts, (std::vector<int>{5, 3, 2}));
  apportion(std::vector<double>{8.0, 1.0, 1.0}, 10, std::vector<int>{4, 99, 99}, parts);
  EXPECT_EQ(parts, (std::vector<int>{4, 3, 3}));
}

// eviction.md §7.2: the authors' integer steps overshoot by up to 27 %, and by 60 % for 80 layers.
TEST(PyramidBudgets, SumToTheTotalExactly) {
  for (const auto& [layers, mean, window] : {std::tuple{32, 128, 8},
                                             {32, 64, 8},
                                             {80, 128, 8},
                                             {80, 40, 8},
                                             {1, 64, 8},
                                             {30, 1024, 32}}) {
    for (const double beta : {1.0, 5.0, 14.0, 20.0}) {
      const LayerBudgets budgets = pyramid(layers, mean, window, beta);
      const auto end = budgets.tokens.begin() + layers;
      EXPECT_EQ(std::accumulate(budgets.tokens.begin(), end, 0), layers * mean);
      EXPECT_TRUE(std::is_sorted(budgets.tokens.begin(), end, std::greater<>()));
      EXPECT_GT(*(end - 1), window);
    }
  }
  const LayerBudgets ours = pyramid(32, 128, 8);
  EXPECT_EQ(ours.tokens[0], 8 + 234);  // as the authors' first and last layer
  EXPECT_EQ(ours.tokens[31], 8 + 6);
}

TEST(PyramidBudgets, FunnelsWidenAndKeepTheTotal) {
  const LayerBudgets budgets = funnel(30, 100, 0.5);
  EXPECT_EQ(std::accumulate(budgets.tokens.begin(), budgets.tokens.end(), 0), 3000);
  EXPECT_TRUE(std::is_sorted(budgets.tokens.begin(), budgets.tokens.begin() + 30));
  EXPECT_NEAR(budgets.tokens[0], 50, 1);
  EXPECT_NEAR(budgets.tokens[29], 150, 1);
}

TEST(Pyramid, KeepsItsLayersBudgets) {
  const Shape shape{.layers = 5, .query_heads = 4, .heads = 2};
  const auto counts =
      counts_after_prompt(Pyramid<SnapKV>{{.tokens_kept = 30, .window = 4}, 20.0}, shape, 120);
  const LayerBudgets expected = pyramid(5, 30, 4);
  for (int layer = 0; layer < 5; ++layer) {
    for (const int count : counts[static_cast<std::size_t>(layer)])
      EXPECT_EQ(count, expected.tokens[static_cast<std::size_t>(layer)]);
  }
}

TEST(Pyramid, WrapsAPolicyThatSharesItsBudget) {
  const Shape shape{.layers = 3, .query_heads = 4, .heads = 4};
  const auto counts = counts_after_prompt(
      Pyramid<AdaHeads<SnapKV>>{{{.tokens_kept = 30, .window = 4}, 0.2F}, 20.0}, shape, 120);
  const LayerBudgets expected = pyramid(3, 30, 4);
  for (std::size_t layer = 0; layer < 3; ++layer)
    EXPECT_EQ(sum(counts[layer]), 4 * expected.tokens[layer]);
}

// L2Norm keeps its first two layers whole: the schedule is that of the others.
TEST(Pyramid, LeavesLayersWithoutABudgetAlone) {
  const Shape shape{.layers = 6, .query_heads = 1};
  const auto counts = counts_after_prompt(
      Pyramid<L2Norm>{{.tokens_kept = 30, .when = When::step()}, 20.0}, shape, 120);
  EXPECT_EQ(counts[0][0], 120);
  EXPECT_EQ(counts[1][0], 120);
  const LayerBudgets expected = pyramid(4, 30, 0);
  for (std::size_t layer = 2; layer < 6; ++layer)
    EXPECT_EQ(counts[layer][0], expected.tokens[layer - 2]);
}

TEST(PerLayerBudget, LeavesLayersWithoutABudgetAlone) {
  const Shape shape{.layers = 4, .query_heads = 1};
  const auto counts = counts_after_prompt(
      PerLayerBudget<L2Norm>{{.tokens_kept = 30, .when = When::step()}, funnel(4, 40, 1.0)}, shape,
      120);
  EXPECT_EQ(counts, (std::vector<std::vector<int>>{{120}, {120}, {40}, {40}}));
}

// What is pinned at both ends counts once each: the total stays exact.
TEST(Pyramid, CountsSinksAndTheWindow) {
  const Shape shape{.layers = 5, .query_heads = 2};
  const auto counts = counts_after_prompt(
      Pyramid<Protect<SnapKV>>{{{.tokens_kept = 30, .window = 4}, 6, 3}, 20.0}, shape, 120);
  int total = 0;
  for (const auto& layer : counts) total += layer[0];
  EXPECT_EQ(total, 5 * 30);
  EXPECT_GE(counts[4][0], 10);
}

// A capped policy decides whether or not the cap is exceeded.
TEST(PerLayerBudget, KeepsACapACap) {
  const Corm capped{.window = 3, .recent = 4, .cap = 90};
  const Shape shape{.layers = 2, .query_heads = 2};
  const auto plain = counts_after_prompt(capped, shape, 80);
  EXPECT_LT(plain[0][0], 80);
  EXPECT_EQ(counts_after_prompt(PerLayerBudget<Corm>{capped, funnel(2, 90, 1.0)}, shape, 80),
            plain);
  EXPECT_EQ(counts_after_prompt(Pyramid<Corm>{capped, 1.0}, shape, 80), plain);
}

TEST(PerLayerBudget, IsRefusedForAnotherNumberOfLayers) {
  PerLayerBudget<TOVA> policy{{.tokens_kept = 8}, funnel(4, 20)};
  expect_policy_refused(policy, {"PerLayerBudget.budgets", "4 layers", "has 3"});
}

TEST(AdaHeads, TotalsAreExactAndEveryHeadHasItsSafeguard) {
  const Shape shape{.layers = 2, .query_heads = 8, .heads = 4};
  for (const float alpha : {0.0F, 0.2F, 0.5F, 1.0F}) {
    for (const auto kind : {Allocation::Kind::blend, Allocation::Kind::floor}) {
      const AdaHeads<SnapKV> policy{{.tokens_kept = 25, .window = 4}, alpha, kind};
      for (const auto& layer : counts_after_prompt(policy, shape, 140)) {
        EXPECT_EQ(sum(layer), 4 * 25);
        for (const int count : layer) EXPECT_GE(count, 4 + static_cast<int>(alpha * 21) - 1);
        if (alpha == 1.0F) {
          EXPECT_EQ(layer, (std::vector<int>(4, 25)));
        }
      }
    }
  }
}

// Ada-KV §3.2 by hand: two heads, budget 3 each; the six best of both are 5 of head 0 and 1 of head
// 1. Blend with alpha 1/2: 5/2 + 3/2 = 4 and 1/2 + 3/2 = 2.
struct ByTable {
  static constexpr Needs needs{};
  struct State {};
  float rank(Token t, State) const {
    return t.head == 0 ? 100.0F + static_cast<float>(t.position)
                       : (t.position == 7 ? 103.5F : static_cast<float>(t.position));
  }
  Budget budget(Layer) const { return tokens(3); }
};
static_assert(check_policy<ByTable>());

TEST(AdaHeads, BlendsAsThePaperDoes) {
  const Script script = conversation_script(3, {.query_heads = 2, .heads = 2});
  const auto kept = [&](float alpha, Allocation::Kind kind) {
    test::Run<AdaHeads<ByTable>, External> run(script, {{}, alpha, kind});
    run.pass({.tokens = 8, .last_of_prompt = true});
    return std::pair(run.kept(0), run.kept(1));
  };
  using Kept = std::vector<int>;
  const auto blend = Allocation::Kind::blend;
  EXPECT_EQ(kept(0.0F, blend), std::pair(Kept({3, 4, 5, 6, 7}), Kept({7})));
  EXPECT_EQ(kept(0.5F, blend), std::pair(Kept({4, 5, 6, 7}), Kept({6, 7})));
  EXPECT_EQ(kept(1.0F, blend), std::pair(Kept({5, 6, 7}), Kept({5, 6, 7})));
  const auto floor = Allocation::Kind::floor;
  EXPECT_EQ(kept(0.0F, floor), std::pair(Kept({3, 4, 5, 6, 7}), Kept({7})));
  EXPECT_EQ(kept(0.7F, floor), std::pair(Kept({4, 5, 6, 7}), Kept({6, 7})));
}

TEST(AdaHeads, BytesFollowTheKeptTokens) {
  const Shape shape{.query_heads = 8, .heads = 4};
  test::Run<AdaHeads<SnapKV>, Dense<float>> run(conversation_script(42, shape),
                                                {{.tokens_kept = 40, .window = 4}, 0.1F});
  run.pass({.tokens = 150, .last_of_prompt = true});
  int blocks = 0;
  for (int head = 0; head < 4; ++head) blocks += (run.cache().tokens(0, head) + 31) / 32;
  const std::size_t payload = 32 * sizeof(float) * (160 + 8);
  EXPECT_LE(run.cache().bytes_in_use(), static_cast<std::size_t>(blocks) * (payload + 1024) + 1024);
}

// A budget below what a policy pins would be exceeded silently.
TEST(PerLayerBudget, IsRefusedBelowWhatIsPinned) {
  const Shape shape{.layers = 30, .head_dim = 8};
  BlockPool pool;
  const auto steep = LayerBudgets::slope(30, 64, 1.95);
  expect_refused(
      [&] {
        KVCache<PerLayerBudget<SnapKV>, External>(shape, {{.tokens_kept = 64}, steep}, {}, pool);
      },
      {"PerLayerBudget<SnapKV>", "budget of layer", "always kept, 32"});
  const auto counts = counts_after_prompt(Pyramid<H2O>{{.heavy = 32, .recent = 32}, 20.0},
                                          {.layers = 30, .query_heads = 1}, 150);
  int total = 0;
  for (const auto& layer : counts) total += layer[0];
  EXPECT_EQ(total, 30 * 64);
}

TEST(AdaHeads, AHugeCapDoesNotOverflow) {
  const Shape shape{.query_heads = 2, .heads = 2};
  const auto counts = counts_after_prompt(
      AdaHeads<Corm>{{.window = 4, .recent = 4, .cap = 1 << 30}, 0.2F}, shape, 100);
  EXPECT_LT(sum(counts[0]), 200);
  expect_policy_refused(Corm{.cap = (1 << 30) + 1}, {"Corm.cap", "2^30"});
}

TEST(AdaHeadsSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(AdaHeads<SnapKV>{{}, -0.1F}, {"AdaHeads.safeguard", "-0.1"});
  expect_policy_refused(AdaHeads<SnapKV>{{}, 1.5F}, {"AdaHeads.safeguard", "1.5"});
  expect_policy_refused(AdaHeads<SnapKV>{{.window = 0}}, {"SnapKV.window", "0"});
  expect_policy_refused(Pyramid<SnapKV>{{}, 0.5}, {"Pyramid.beta", "0.5"});
  expect_policy_refused(Pyramid<SnapKV>{{}, std::numeric_limits<double>::infinity()},
                        {"Pyramid.beta", "inf"});
  expect_policy_refused(Pyramid<SnapKV>{{.tokens_kept = 1 << 23}}, {"Pyramid", "8388608", "2^22"});
  expect_policy_refused(Pyramid<SnapKV>{{}, 20.0, {-1}}, {"Pyramid.kvpress.prompt", "-1"});
  expect_policy_refused(Pyramid<SnapKV>{{}, 20.0, {100, 1.5}}, {"Pyramid.kvpress.kept", "1.5"});
  expect_policy_refused(Pyramid<SnapKV>{{.tokens_kept = 32}}, {"Pyramid", "32", "always kept, 32"});
}

// Each of these would do nothing, silently.
TEST(AdaHeadsSettings, WrappersOfPoliciesWithoutALimitAreRefused) {
  expect_policy_refused(AdaHeads<Corm>{}, {"AdaHeads", "Corm has no budget"});
  expect_policy_refused(Pyramid<Corm>{}, {"Pyramid", "Corm has no budget"});
  expect_policy_refused(PerLayerBudget<Corm>{{}, funnel(3, 300, 1.0)},
                        {"PerLayerBudget", "Corm has no budget"});
  expect_refused([] { (void)funnel(4, 20, 1.5); }, {"funnel", "first is 1.5", "(0, 1]"});
  expect_refused([] { (void)LayerBudgets::slope(4, 1 << 23, 1.0); }, {"mean is 8388608", "2^22"});
}

}  // namespace
}  // namespace kvast::test

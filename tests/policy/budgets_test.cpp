// SPDX-License-Identifier: Apache-2.0
// Budgets that heads share and that layers differ in: exact totals, bytes that follow, and
// refusals.
#include <limits>

#include "tests/policy/counts.h"
#include "tests/support/random.h"

namespace kvast::test {
namespace {

std::vector<int> parts_of(const std::vector<double>& shares, int total,
                          const std::vector<int>& most) {
  std::vector<Claim> claims(shares.size());
  for (std::size_t at = 0; at < claims.size(); ++at)
    claims[at] = {.share = shares[at], .most = most[at]};
  apportion(claims.data(), static_cast<int>(claims.size()), total);
  std::vector<int> parts;
  for (const Claim& claim : claims) parts.push_back(claim.part);
  return parts;
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
    const std::vector<int> parts = parts_of(shares, total, most);
    EXPECT_EQ(sum(parts), std::min(total, sum(most)));
    for (std::size_t at = 0; at < count; ++at) {
      EXPECT_GE(parts[at], 0);
      EXPECT_LE(parts[at], most[at]);
    }
  }
}

TEST(Apportion, RoundsByLargestRemainder) {
  EXPECT_EQ(parts_of({1.0, 1.0, 1.0}, 10, {99, 99, 99}), (std::vector<int>{4, 3, 3}));
  EXPECT_EQ(parts_of({5.2, 3.3, 1.5}, 10, {99, 99, 99}), (std::vector<int>{5, 3, 2}));
  EXPECT_EQ(parts_of({8.0, 1.0, 1.0}, 10, {4, 99, 99}), (std::vector<int>{4, 3, 3}));
}

TEST(PerLayerBudget, LeavesLayersWithoutABudgetAlone) {
  const Shape shape{.layers = 4, .query_heads = 1};
  const auto counts = counts_after_prompt(
      PerLayerBudget<L2Norm>{{.tokens_kept = 30, .when = When::step()}, funnel(4, 40, 1.0)}, shape,
      120);
  EXPECT_EQ(counts, (std::vector<std::vector<int>>{{120}, {120}, {40}, {40}}));
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
  EXPECT_EQ(counts_after_prompt(Pyramid<Corm>{capped, 1.0, 1.0}, shape, 80), plain);
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

/// Decodes 60 tokens after a prompt: blocks may exceed what the kept tokens fill by one per head.
template <class Policy>
void expect_bytes_to_follow(Policy policy) {
  const Shape shape{.query_heads = 8, .heads = 4};
  test::Run<Policy, Dense<half>> run(conversation_script(43, shape), policy);
  run.pass({.tokens = 100, .last_of_prompt = true});
  const std::size_t payload = 32 * sizeof(half) * (160 + 8);
  const std::size_t side = sizeof(Block) + 32 * sizeof(typename Policy::State) + 64;
  for (int step = 0; step < 60; ++step) {
    run.pass({});
    std::size_t blocks = 0;
    for (int head = 0; head < 4; ++head)
      blocks += static_cast<std::size_t>(run.cache().tokens(0, head) + 31) / 32 + 1;
    ASSERT_LE(run.cache().bytes_in_use(), blocks * (payload + side) + 4 * 128) << step;
  }
}
TEST(HeadBudgets, BytesFollowTheKeptTokensWhileDecoding) {
  expect_bytes_to_follow(AdaHeads<H2O>{{.heavy = 20, .recent = 10}, 0.1F});
  expect_bytes_to_follow(Corm{.window = 2, .recent = 4});
}

// Its budgets follow the tokens seen, and may be smaller than the batch.
TEST(Pyramid, HoldsBudgetsThatAreSmallerThanABatch) {
  const Shape shape{.layers = 2, .head_dim = 8};
  Pyramid<Scissorhands> policy{{.tokens_kept = 300, .when = When::full(100)}, 1.0};
  policy.kvpress = 0.1;
  BlockPool pool;
  KVCache<Pyramid<Scissorhands>, External> cache(shape, policy, {}, pool);
  const std::vector<float> weights(200 * 200, 0.01F);
  auto pass = cache.begin({.tokens = 200, .last_of_prompt = true});
  for (int layer = 0; layer < 2; ++layer) {
    pass->append(layer);
    pass->observe(layer, {weights.data(), 200, 200});
    pass->commit(layer);
    EXPECT_LE(cache.tokens(layer, 0), 40) << layer;
  }
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
  expect_policy_refused(Pyramid<SnapKV>{{}, 20.0, -1.0}, {"Pyramid.kvpress", "-1", "[0, 1]"});
  expect_policy_refused(Pyramid<SnapKV>{{}, 20.0, 1.5}, {"Pyramid.kvpress", "1.5"});
  expect_policy_refused(Pyramid<SnapKV>{{.tokens_kept = 32}}, {"Pyramid", "32", "always kept, 32"});
}

// Each of these would do nothing, silently.
TEST(AdaHeadsSettings, WrappersOfPoliciesWithoutALimitAreRefused) {
  expect_policy_refused(AdaHeads<Corm>{}, {"AdaHeads<Corm>", "no budget in any layer"});
  expect_policy_refused(Pyramid<Corm>{}, {"Pyramid<Corm>", "no budget in any layer"});
  expect_policy_refused(PerLayerBudget<Corm>{{}, funnel(3, 300, 1.0)},
                        {"PerLayerBudget<Corm>", "no budget in any layer"});
  const L2Norm skips{.skip = LayerSet::first(3)};
  const std::vector<std::string> idle{"no budget in any layer", "would do nothing"};
  expect_policy_refused(skips, idle);
  expect_policy_refused(Pyramid<L2Norm>{skips}, idle);
  expect_policy_refused(AdaHeads<L2Norm>{skips}, idle);
  expect_policy_refused(Protect<L2Norm>{skips}, idle);
  // two of three layers are not its own
  expect_policy_refused(PerLayer<L2Norm, H2O>{}, {"L2Norm", "no budget in any layer"});
  expect_policy_refused(PrefillThenDecode<L2Norm, H2O>{skips, {}}, {"L2Norm", "no budget"});
  expect_policy_refused(PerHead<L2Norm, H2O>{{.when = When::step()}, {}, HeadSet{}.add(1, 0)},
                        {"L2Norm", "no budget"});
  expect_refused([] { (void)funnel(4, 20, 1.5); }, {"funnel", "first is 1.5", "(0, 1]"});
  expect_refused([] { (void)LayerBudgets::slope(4, 1 << 23, 1.0); }, {"mean is 8388608", "2^22"});
  expect_refused([] { (void)LayerBudgets::slope(1 << 30, 9, 1.0); }, {"1073741824 layers", "256"});
  expect_refused([] { (void)pyramid(4, 2147483647, 2147483000); }, {"mean is 2147483647", "2^30"});
  const std::vector<double> huge{1e308, 1e308, 5e307};
  EXPECT_EQ(
      sum({LayerBudgets::split(huge, 50, 1).tokens[0], LayerBudgets::split(huge, 50, 1).tokens[1],
           LayerBudgets::split(huge, 50, 1).tokens[2]}),
      150);
  BlockPool pool;
  PerLayerBudget<TOVA> many{{.tokens_kept = 8}, {.layers = 300}};
  expect_refused(
      [&] {
        KVCache<PerLayerBudget<TOVA>, External>(Shape{.layers = 300, .head_dim = 8}, many, {},
                                                pool);
      },
      {"PerLayerBudget.budgets has 300", "at most 256"});
}

}  // namespace
}  // namespace kvast::test

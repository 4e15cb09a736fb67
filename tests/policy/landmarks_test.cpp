// SPDX-License-Identifier: Apache-2.0
// What any policy may count on: pins, drops, NaN, infinities, ties, budgets and the times at which
// it acts.
#include <algorithm>
#include <limits>

#include "tests/policy/script.h"

namespace kvast::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Ranks by a table.
struct Table {
  const float* ranks = nullptr;  ///< by position
  int limit = -1;
  When when = When::step();
  static constexpr Needs needs{};
  struct State {};

  float rank(Token token, State) const { return ranks[token.position]; }
  Budget budget(Layer) const { return {limit}; }
};

std::vector<int> kept_of(const std::vector<float>& ranks, int limit, When when = When::step()) {
  BlockPool pool;
  KVCache<Table, External> cache(Shape{.head_dim = 8}, {ranks.data(), limit, when}, {}, pool);
  auto pass = cache.begin({.tokens = static_cast<int>(ranks.size())});
  pass->append(0);
  pass->commit(0);
  return cache.kept(0, 0);
}
using Kept = std::vector<int>;

TEST(Ranks, HigherStays) {
  EXPECT_EQ(kept_of({3, -1, 2, 0.5F, -7, 4}, 3), (Kept{0, 2, 5}));
  EXPECT_EQ(kept_of({3, -1, 2, 0.5F, -7, 4}, 6), (Kept{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(kept_of({1e-42F, 0, -1e-42F, 2e-42F}, 2),
            (Kept{0, 3}));  // subnormal, and still ordered
}

TEST(Ranks, OfEqualsTheNewerStays) {
  EXPECT_EQ(kept_of({1, 1, 1, 1, 1}, 2), (Kept{3, 4}));
  EXPECT_EQ(kept_of({1, 2, 1, 2, 1}, 3), (Kept{1, 3, 4}));
  EXPECT_EQ(kept_of({0.0F, -0.0F, 0.0F}, 1), (Kept{2}));  // the two zeros are equal
  EXPECT_EQ(kept_of({-0.0F, 0.0F, -0.0F}, 1), (Kept{2}));
}

TEST(Ranks, NaNGoesFirstOfWhatMayGo) {
  EXPECT_EQ(kept_of({5, kNaN, 1, 2}, 3), (Kept{0, 2, 3}));
  EXPECT_EQ(kept_of({5, -kNaN, -3e38F, kNaN}, 2), (Kept{0, 2}));
  EXPECT_EQ(kept_of({kNaN, kNaN, kNaN, kNaN}, 2), (Kept{2, 3}));
  EXPECT_EQ(kept_of({kNaN, 1, kNaN}, -1), (Kept{0, 1, 2}));  // lowest, but not dropped
  EXPECT_EQ(kept_of({kDrop, kNaN, 1}, 2), (Kept{1, 2}));
}

// They come of sums that overflowed: such a token ranks high or low, but the budget holds.
TEST(Ranks, InfinitiesAreNoLandmarks) {
  EXPECT_EQ(kept_of({kInfinity, 1, kInfinity, kInfinity, 2}, 2), (Kept{2, 3}));
  EXPECT_EQ(kept_of({kInfinity, 1, kPin, 3e38F, 2}, 2), (Kept{0, 2}));
  EXPECT_EQ(kept_of({1, -kInfinity, 2, 3}, -1), (Kept{0, 1, 2, 3}));
  EXPECT_EQ(kept_of({1, -kInfinity, 2, 3}, 3), (Kept{0, 2, 3}));
  EXPECT_EQ(kept_of({-kInfinity, kNaN, 2, 3}, 3), (Kept{1, 2, 3}));
}

TEST(Ranks, PinsStayBeyondTheBudget) {
  EXPECT_EQ(kept_of({kPin, kPin, kPin, kPin}, 2), (Kept{0, 1, 2, 3}));
  EXPECT_EQ(kept_of({1, kPin, 9, kPin, kPin}, 2), (Kept{1, 3, 4}));
  EXPECT_EQ(kept_of({1, kPin, 9, kPin, kPin}, 4), (Kept{1, 2, 3, 4}));
}

TEST(Ranks, DropsGoBelowTheBudgetOnceItIsExceeded) {
  EXPECT_EQ(kept_of({kDrop, 1, kDrop, kDrop, kDrop}, 4), (Kept{1}));
  EXPECT_EQ(kept_of({kDrop, kDrop, kDrop}, -1), (Kept{}));
}

TEST(Ranks, KeysOrderAsTheRanksDo) {
  const std::vector<float> ascending{kDrop,  -3e38F, -1.0F, -1e-40F, 0.0F,
                                     1e-40F, 1.0F,   3e38F, kPin};
  for (std::size_t at = 1; at < ascending.size(); ++at)
    EXPECT_LT(rank_key(ascending[at - 1]), rank_key(ascending[at])) << at;
  EXPECT_EQ(rank_key(kPin), kPinKey);
  EXPECT_EQ(rank_key(kDrop), kDropKey);
  EXPECT_LT(rank_key(kInfinity), kPinKey);
  EXPECT_GT(rank_key(kInfinity), rank_key(3.4e38F));
  EXPECT_LT(rank_key(-kInfinity), rank_key(-3.4e38F));
  EXPECT_GT(rank_key(-kInfinity), kDropKey);
  EXPECT_EQ(rank_key(-0.0F), rank_key(0.0F));
  EXPECT_GT(rank_key(kNaN), kDropKey);
  EXPECT_LT(rank_key(kNaN), rank_key(-3.4e38F));
}

TEST(Timing, WhenFullComesDownByTheBatchAtOnce) {
  EXPECT_EQ(kept_of({1, 2, 3, 4, 5, 6}, 6, When::full(3)).size(), 6U);
  EXPECT_EQ(kept_of({1, 2, 3, 4, 5, 6}, 5, When::full(3)), (Kept{3, 4, 5}));
  EXPECT_EQ(kept_of({1, 2, 3, 4, 5, 6}, 5, When::full(5)), (Kept{5}));
}

TEST(Timing, WithoutABudgetABatchOfOneIsEachStep) {
  EXPECT_EQ(kept_of({kDrop}, -1, When::step()), (Kept{}));
  EXPECT_EQ(kept_of({kDrop}, -1, When::full(1)), (Kept{}));
}

TEST(Timing, WithoutABudgetItActsEveryBatchTokens) {
  const std::vector<float> ranks(12, kDrop);
  BlockPool pool;
  KVCache<Table, External> cache(Shape{.head_dim = 8}, {ranks.data(), -1, When::full(3)}, {}, pool);
  for (int turn = 0; turn < 2; ++turn) {  // clear() starts the count again
    for (int step = 0; step < 12; ++step) {
      auto pass = cache.begin({});
      pass->append(0);
      pass->commit(0);
      EXPECT_EQ(cache.tokens(0, 0), (step + 1) % 3) << step;
    }
    cache.clear();
  }
}

TEST(Timing, AtPromptsEndsOnly) {
  const std::vector<float> ranks{6, 5, 4, 3, 2, 1};
  BlockPool pool;
  KVCache<Table, External> cache(Shape{.head_dim = 8}, {ranks.data(), 2, When::prompt()}, {}, pool);
  const auto pass_of = [&](const PassOptions& options) {
    auto pass = cache.begin(options);
    pass->append(0);
    pass->commit(0);
    return cache.kept(0, 0);
  };
  EXPECT_EQ(pass_of({.tokens = 3, .more_of_prompt = true}), (Kept{0, 1, 2}));
  EXPECT_EQ(pass_of({.last_of_prompt = true}), (Kept{0, 1}));
  EXPECT_EQ(pass_of({}), (Kept{0, 1, 4}));
  EXPECT_EQ(pass_of({.last_of_prompt = true}), (Kept{0, 1}));
}

TEST(Settings, ImpossibleBudgetsAndBatchesAreRefused) {
  const float ranks[] = {0};
  expect_policy_refused(Table{ranks, 0}, {"budget of layer 0", "is 0", "at least 1"});
  expect_policy_refused(Table{ranks, 4, When::full(5)}, {"when.batch", "5", "budget, 4"});
  expect_policy_refused(Table{ranks, 4, When::full(0)}, {"when.batch", "0", "at least 1"});
  expect_policy_refused(Table{ranks, -1, When::full(-1)}, {"when.batch", "-1", "at least 1"});
}

/// One set for both heads; a key's norm says where its rank stands.
struct LayerTable {
  const float* ranks = nullptr;  ///< [heads, 8]
  int limit = -1;
  static constexpr Needs needs{.key_norms = true};
  static constexpr Scope scope = Scope::layer;
  struct State {};

  float rank(Token token, State) const {
    // the engine also ranks empty slots, whose norm may be 0, and ignores the answer
    return ranks[std::max(0, static_cast<int>(token.key_norm) - 1)];
  }
  Budget budget(Layer) const { return {limit}; }
};

Kept kept_of_layer(const std::vector<std::vector<float>>& ranks, int limit) {
  const auto heads = static_cast<int>(ranks.size());
  std::vector<float> table(static_cast<std::size_t>(heads * 8), 0.0F);
  for (std::size_t head = 0; head < ranks.size(); ++head)
    std::copy(ranks[head].begin(), ranks[head].end(), table.begin() + static_cast<int>(head) * 8);
  const Script script{.shape = {.query_heads = heads, .heads = heads, .head_dim = 8},
                      .logits = [](int, int, int) { return 0.0; },
                      .norms = [](int head, int position) { return 1.0 + head * 8 + position; }};
  Run<LayerTable, External> run(script, {table.data(), limit});
  run.pass({.tokens = static_cast<int>(ranks[0].size())});
  for (int head = 1; head < heads; ++head) EXPECT_EQ(run.kept(head), run.kept(0));
  return run.kept();
}

TEST(LayerScope, RanksByTheMeanOverHeads) {
  EXPECT_EQ(kept_of_layer({{1, 5, 3, 0}, {4, 1, 0, 3.5F}}, 2), (Kept{0, 1}));
  EXPECT_EQ(kept_of_layer({{1, 5, 3, 0}, {4, 0, 2, 4}}, 2), (Kept{1, 2}));  // ties: the newer
  EXPECT_EQ(kept_of_layer({{1, kNaN, 3}, {4, 9, 1}}, 2), (Kept{0, 2}));
}

TEST(LayerScope, APinOfAnyHeadHolds) {
  EXPECT_EQ(kept_of_layer({{kPin, kPin, 1}, {1, 1, 9}}, 1), (Kept{0, 1}));
  EXPECT_EQ(kept_of_layer({{1, 1, 9}, {kPin, kPin, 1}}, 1), (Kept{0, 1}));
  EXPECT_EQ(kept_of_layer({{kDrop, 1, 9}, {kPin, 2, 1}}, 1), (Kept{0}));
}

TEST(LayerScope, ADropOfAnyHeadHoldsUnlessOnePins) {
  EXPECT_EQ(kept_of_layer({{kDrop, 1, 2}, {5, 1, 2}}, -1), (Kept{1, 2}));
  EXPECT_EQ(kept_of_layer({{5, 1, 2}, {kDrop, 1, 2}}, -1), (Kept{1, 2}));
  EXPECT_EQ(kept_of_layer({{kPin, 1, 2}, {kDrop, 1, 2}}, -1), (Kept{0, 1, 2}));
}

}  // namespace
}  // namespace kvast::test

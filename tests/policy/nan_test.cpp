// SPDX-License-Identifier: Apache-2.0
// Weights that are no numbers, as an engine's own kernel may bring them: nothing runs wild, what is
// always kept stays, and budgets hold.
#include <limits>

#include "tests/policy/script.h"
#include "tests/support/random.h"

namespace kvast::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// 200 steps of which every seventh brings numbers of one kind for a third of the tokens.
template <class Policy>
void decode(Policy policy, float bad, int budget, int sinks, int recent) {
  BlockPool pool;
  KVCache<Policy, External> cache(Shape{.head_dim = 8}, policy, {}, pool);
  Random random(9);
  for (int step = 0; step < 200; ++step) {
    auto pass = cache.begin({.tokens = step == 0 ? 50 : 1, .last_of_prompt = step == 0});
    pass->append(0);
    const int rows = step == 0 ? 50 : 1;
    const std::size_t slots = cache.slots(0, 0).size();
    std::vector<float> weights(static_cast<std::size_t>(rows) * slots);
    for (std::size_t at = 0; at < weights.size(); ++at)
      weights[at] =
          step % 7 == 0 && at % 3 == 1 ? bad : static_cast<float>(random.between(0, 1000)) * 1e-3F;
    pass->observe(0, {weights.data(), static_cast<std::int64_t>(slots), 0});
    pass->commit(0);
    const std::vector<int> kept = cache.kept(0, 0);
    if (budget > 0) {
      ASSERT_LE(kept.size(), static_cast<std::size_t>(budget)) << step;
    }
    for (int position = 0; position < sinks; ++position)
      ASSERT_TRUE(std::binary_search(kept.begin(), kept.end(), position)) << step;
    for (int age = 0; age < recent; ++age)
      ASSERT_TRUE(std::binary_search(kept.begin(), kept.end(), cache.length() - 1 - age)) << step;
  }
}

TEST(NaN, BudgetsAndPinsHold) {
  for (const float bad : {kNaN, -kNaN, kInfinity, 3e38F}) {
    decode(H2O{.heavy = 20, .recent = 10}, bad, 30, 0, 10);
    decode(TOVA{.tokens_kept = 30, .recent = 5}, bad, 30, 0, 5);
    decode(Corm{.window = 10, .recent = 10, .cap = 30}, bad, 30, 0, 10);
    decode(Scissorhands{.tokens_kept = 30, .recent = 10, .window = 20, .when = When::full(5)}, bad,
           30, 0, 10);
    decode(Keyformer{.tokens_kept = 30, .recent = 10}, bad, 30, 0, 10);
    decode(RoCo{.tokens_kept = 30, .sinks = 4, .recent = 10}, bad, 30, 4, 10);
    decode(Cascading{.sinks = 4, .rings = 2, .ring = 13, .forget = 0.1F}, bad, 30, 4, 1);
    decode(DBudgetKV{.when = When::step()}, bad, -1, 4, 32);
    decode(FastGen{.threshold = 0.5F}, bad, -1, 0, 1);
    decode(AdaHeads<H2O>{{.heavy = 20, .recent = 10}}, bad, 30, 0, 10);
  }
}

TEST(NaN, GoesFirstInRoCo) {
  Random random(3);
  const RoCo policy{.tokens_kept = 40, .sinks = 2, .recent = 3};
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<RoCo::State> states(60);
    for (RoCo::State& state : states) {
      for (int step = 0; step < 5; ++step)
        policy.observe(state, {.weight = static_cast<float>(random.between(0, 1000)) * 1e-3F});
    }
    std::vector<bool> bad(60, false);
    for (int times = random.between(1, 8); times > 0; --times) {
      const auto at = static_cast<std::size_t>(random.between(0, 59));
      policy.observe(states[at], {.weight = random.chance(0.5) ? kNaN : kInfinity});
      bad[at] = true;
    }
    const std::vector<float> ranks = ranks_of(policy, states, 40);
    std::int32_t worst_good = kPinKey;
    std::int32_t best_bad = kDropKey;
    for (std::size_t at = 0; at < 60; ++at) {
      const std::int32_t key = rank_key(ranks[at]);
      if (at < 2 || at >= 57) {
        EXPECT_EQ(key, kPinKey);
        continue;
      }
      EXPECT_GT(key, kDropKey);
      EXPECT_LT(key, kPinKey);
      (bad[at] ? best_bad : worst_good) =
          bad[at] ? std::max(best_bad, key) : std::min(worst_good, key);
    }
    EXPECT_LT(best_bad, worst_good);
  }
}

// A map that holds NaN says nothing of what may go.
TEST(NaN, KeepsAllInDBudgetKV) {
  for (const float bad : {kNaN, kInfinity}) {
    std::vector<DBudgetKV::State> states(100, DBudgetKV::State{.squares = 0.01F});
    states[70].squares = bad;
    for (const float rank : ranks_of(DBudgetKV{.threshold = 0.5F}, states, -1))
      EXPECT_EQ(rank_key(rank), kPinKey);
  }
}

TEST(NaN, ChoosesToKeepAllInFastGen) {
  FastGen::Profile profile;
  for (int rule = 0; rule < 5; ++rule) profile.mass[rule] = 1.0;
  EXPECT_EQ(FastGen{}.choose(profile, 10).rule, FastGen::Rule::special);
  profile.mass[4] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(FastGen{}.choose(profile, 10).rule, FastGen::Rule::full);
  profile.mass[4] = std::numeric_limits<double>::infinity();
  EXPECT_EQ(FastGen{}.choose(profile, 10).rule, FastGen::Rule::full);
}

TEST(NaN, CountsAsLittleInScissorhands) {
  const Scissorhands policy{.recent = 0, .window = 4};
  Scissorhands::State little, nan;
  policy.observe(little, {.weight = 0.0F, .visible = 10, .step = 1});
  policy.observe(nan, {.weight = kNaN, .visible = 10, .step = 1});
  EXPECT_EQ(policy.rank({.position = 0, .age = 9}, nan),
            policy.rank({.position = 0, .age = 9}, little));
}

// Offered out of turn, a token takes the place of a ring's newest where it has as much attention.
TEST(NaN, LosesItsPlaceInCascading) {
  const Cascading policy{.sinks = 0, .rings = 2, .ring = 2};
  // ring 1 holds tokens 0 and 1, ring 0 tokens 2 and 3; token 4 pushes 2 out of ring 0
  const auto leaves = [&](float of_newest, float of_offered) {
    const std::vector<float> ranks = ranks_of(
        policy, {{1.0F, 1}, {of_newest, 1}, {of_offered, 0}, {1.0F, 0}, {1.0F, -1}}, -1, 1);
    return std::min_element(ranks.begin(), ranks.end()) - ranks.begin();
  };
  EXPECT_EQ(leaves(0.5F, 0.1F), 2);
  EXPECT_EQ(leaves(0.1F, 0.5F), 1);
  EXPECT_EQ(leaves(kNaN, 0.1F), 1);
  EXPECT_EQ(leaves(0.5F, kNaN), 2);
}

}  // namespace
}  // namespace kvast::test

// SPDX-License-Identifier: Apache-2.0
// FastGen: the golden profile of the trace, what its rules keep while decoding, and refusals.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

using Kept = std::vector<int>;
using Rule = FastGen::Rule;

/// The trace's prompt: token 0 is special, token 3 punctuation.
Turn prompt() {
  Turn turn{.tokens = kTracePrompt, .last_of_prompt = true};
  turn.kinds.assign(kTracePrompt, TokenKind::other);
  turn.kinds[0] = TokenKind::special;
  turn.kinds[3] = TokenKind::punctuation;
  return turn;
}
FastGen policy(float threshold) {
  return {.threshold = threshold, .frequent = 0.25F, .local = 0.25F, .by_lifetime = false};
}

template <class Storage>
class FastGenTest : public testing::Test {};
TYPED_TEST_SUITE(FastGenTest, Storages, StorageNames);

TYPED_TEST(FastGenTest, ProfilesTheGoldenMassesOfTheTrace) {
  Run<FastGen, TypeParam> run(trace(), policy(0.9F));
  run.pass(prompt());
  const FastGen::Choice choice = run.cache().choice(0, 0);
  const double golden[] = {.363677, .437653, .765188, .917305, 1.0};
  for (std::size_t rule = 0; rule < 5; ++rule)
    EXPECT_NEAR(static_cast<double>(choice.mass[rule]), golden[rule], 1e-6);
}

TYPED_TEST(FastGenTest, PicksTheFirstRuleThatPasses) {
  const std::vector<std::tuple<float, Rule, Kept>> golden{
      {0.30F, Rule::special, {0}},
      {0.40F, Rule::punctuation, {0, 3}},
      {0.75F, Rule::frequent, {0, 2, 3, 4}},
      {0.90F, Rule::local, {0, 2, 3, 4, 6, 7}},
      {0.95F, Rule::full, {0, 1, 2, 3, 4, 5, 6, 7}},
      {1.00F, Rule::full, {0, 1, 2, 3, 4, 5, 6, 7}}};
  for (const auto& [threshold, rule, kept] : golden) {
    Run<FastGen, TypeParam> run(trace(), policy(threshold));
    run.pass(prompt());
    EXPECT_EQ(run.cache().choice(0, 0).rule, rule) << threshold;
    EXPECT_EQ(run.kept(), kept) << threshold;
  }
}

TEST(FastGen, FrequencyIsPerQueryThatCouldSeeTheToken) {
  const Token token{.age = 3};  // its own query and three more
  EXPECT_FLOAT_EQ(FastGen{}.frequency(token, {.mass = 2.0F}), 0.5F);
  EXPECT_FLOAT_EQ(FastGen{.by_lifetime = false}.frequency(token, {.mass = 2.0F}), 2.0F);
}

TYPED_TEST(FastGenTest, L1AsksForHalfOfWhatIsMissing) {
  FastGen strict = policy(0.8F);  // mass >= 0.9
  strict.criterion = FastGen::Criterion::l1;
  Run<FastGen, TypeParam> run(trace(), strict);
  run.pass(prompt());
  EXPECT_EQ(run.cache().choice(0, 0).rule, Rule::local);
}

TYPED_TEST(FastGenTest, MayAverageOverTheLastRowsOnly) {
  FastGen last = policy(0.9F);
  last.rows = 1;
  Run<FastGen, TypeParam> run(trace(), last);
  run.pass(prompt());
  // row 7 of the trace: .0487 .0109 .3596 .0295 .3596 .0109 .0487 .1323
  const FastGen::Choice choice = run.cache().choice(0, 0);
  const double row[] = {.0487, .0487 + .0295, .0487 + .0295 + 2 * .3596,
                        .0487 + .0295 + 2 * .3596 + .0487 + .1323, 1.0};
  for (std::size_t rule = 0; rule < 5; ++rule)
    EXPECT_NEAR(static_cast<double>(choice.mass[rule]), row[rule], 2e-4);
}

TYPED_TEST(FastGenTest, ARuleStaysWhileDecoding) {
  const auto kept_after = [](float threshold, int steps) {
    Run<FastGen, TypeParam> run(trace(), policy(threshold));
    run.pass(prompt());
    for (int step = 0; step < steps; ++step) {
      Turn turn;
      turn.kinds = {step == 1 ? TokenKind::punctuation : TokenKind::other};
      run.pass(turn);
    }
    return run.kept();
  };
  EXPECT_EQ(kept_after(0.30F, 3), (Kept{0}));
  EXPECT_EQ(kept_after(0.40F, 3), (Kept{0, 3, 9}));  // token 9 is punctuation
  const Kept local = kept_after(0.90F, 3);
  EXPECT_TRUE(std::binary_search(local.begin(), local.end(), 10));
  EXPECT_TRUE(std::binary_search(local.begin(), local.end(), 9));
  EXPECT_EQ(local.size(),
            2U + 2U + 3U);  // special and punctuation, newest 2 (one counted), 3 of 11
  EXPECT_EQ(kept_after(0.95F, 3).size(), 11U);
}

TYPED_TEST(FastGenTest, ASecondPromptDoesNotChooseAgain) {
  Run<FastGen, TypeParam> run(trace(), policy(0.75F));
  run.pass(prompt());
  const Rule first = run.cache().choice(0, 0).rule;
  run.pass({.tokens = 4, .last_of_prompt = true});
  EXPECT_EQ(run.cache().choice(0, 0).rule, first);
  run.cache().clear();
  EXPECT_EQ(run.cache().choice(0, 0).rule, Rule::full) << "forgotten with everything else";
  for (int step = 0; step < 6; ++step) run.pass({});
  EXPECT_EQ(run.kept().size(), 6U) << "no rule is left to drop anything";
}

TYPED_TEST(FastGenTest, BeforeAPromptsEndEverythingStays) {
  Run<FastGen, TypeParam> run(trace(), policy(0.30F));
  for (int step = 0; step < 6; ++step) run.pass({});
  EXPECT_EQ(run.kept().size(), 6U);
}

TEST(FastGen, HeadsChooseForThemselvesAndForksKeepTheChoice) {
  const Shape shape{.layers = 2, .query_heads = 6, .heads = 3};
  test::Run<FastGen, Dense<float>> run(conversation_script(71, shape),
                                       {.threshold = 0.6F, .frequent = 0.1F, .local = 0.1F});
  run.pass({.tokens = 120, .last_of_prompt = true});
  auto fork = run.cache().fork();
  ASSERT_TRUE(fork);
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 3; ++head) {
      EXPECT_EQ(fork->choice(layer, head).rule, run.cache().choice(layer, head).rule);
      EXPECT_EQ(fork->kept(layer, head), run.cache().kept(layer, head));
    }
  }
}

// A part is a float: 0.3F of ten tokens are three. Of millions it must not become more than it is.
TEST(FastGen, PartsOfLongTextsAreExact) {
  const FastGen policy{.frequent = 0.3F, .local = 0.3F};
  EXPECT_EQ(policy.marks(10), 3);
  EXPECT_EQ(policy.marks(11), 4);
  EXPECT_EQ(policy.marks(3000000), 900000);
  EXPECT_EQ(policy.choose({}, 10).window, 3);
  EXPECT_EQ(policy.choose({}, 3000000).window, 900000);
  for (const int length : {1000000, 30000001, 1 << 30, 2147483647}) {
    EXPECT_NEAR(policy.marks(length), static_cast<double>(0.3F) * length, 1.0);
    EXPECT_NEAR(policy.choose({}, length).window, static_cast<double>(0.3F) * length, 1.0);
    const FastGen all{.frequent = 1.0F, .local = 1.0F};
    EXPECT_EQ(all.marks(length), length);
    EXPECT_EQ(all.choose({}, length).window, length);
  }
}

TEST(FastGenSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(FastGen{.threshold = 0.0F}, {"FastGen.threshold", "0", "(0, 1]"});
  expect_policy_refused(FastGen{.threshold = 1.1F}, {"FastGen.threshold", "1.1"});
  expect_policy_refused(FastGen{.frequent = -0.1F}, {"FastGen.frequent", "-0.1"});
  expect_policy_refused(FastGen{.local = 2.0F}, {"FastGen.local", "2"});
  expect_policy_refused(FastGen{.rows = -1}, {"FastGen.rows", "-1"});
  expect_policy_refused(FastGen{.criterion = static_cast<FastGen::Criterion>(2)},
                        {"FastGen.criterion", "2"});
  BlockPool pool;
  KVCache<FastGen, Dense<float>> cache(Shape{.head_dim = 8}, {}, {}, pool);
  expect_refused([&] { (void)cache.begin({.tokens = 3, .more_of_prompt = true}); },
                 {"more_of_prompt", "FastGen", "one pass"});
}

}  // namespace
}  // namespace kvast::test

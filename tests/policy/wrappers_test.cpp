// SPDX-License-Identifier: Apache-2.0
// Wrappers change when a policy acts and whom it spares, and nothing else; Random is the control.
#include <set>

#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

TEST(Protect, SparesSinksAndTheNewestWithinTheBudget) {
  const Script script = conversation_script(51);
  const Protect<TOVA> policy{{.tokens_kept = 12}, 3, 4};
  test::Run<Protect<TOVA>, Dense<float>> run(script, policy);
  for (const Turn& turn : conversation()) {
    run.pass(turn);
    const std::vector<int> kept = run.kept();
    ASSERT_LE(kept.size(), 12U);
    const int newest = run.cache().length() - 1;
    for (const int position : {0, 1, 2, newest - 3, newest - 2, newest - 1, newest})
      ASSERT_TRUE(std::binary_search(kept.begin(), kept.end(), position)) << position;
  }
}

TEST(Protect, ProtectingTheNewestIsWhatAPolicysOwnRecentDoes) {
  const Script script = conversation_script(52);
  test::Run<H2O, External> own(script, {.heavy = 9, .recent = 5});
  test::Run<Protect<H2O>, External> wrapped(script, {{.heavy = 14, .recent = 0}, 0, 5});
  for (const Turn& turn : conversation()) {
    own.pass(turn);
    wrapped.pass(turn);
    for (int head = 0; head < 2; ++head) ASSERT_EQ(wrapped.kept(head), own.kept(head));
  }
}

TEST(Protect, CountsEachPinnedTokenOnce) {
  const Pins pins = Protect<SnapKV>{{.window = 8}, 4, 6}.pins();
  EXPECT_EQ(pins.first, 4);
  EXPECT_EQ(pins.newest, 8);
  EXPECT_EQ((Protect<RoCo>{{.sinks = 4, .recent = 10}, 6, 12}.pins().count()), 18);
  expect_policy_refused(Protect<SnapKV>{{.tokens_kept = 11, .window = 8}, 4, 6},
                        {"Protect<SnapKV>", "budget of layer 0 is 11", "always kept, 12"});
}

TEST(Protect, WorksOverAPolicyThatChooses) {
  const FastGen narrow{.threshold = 0.01F, .frequent = 0.05F, .local = 0.05F};
  test::Run<Protect<FastGen>, Dense<float>> run(conversation_script(58), {narrow, 5, 9});
  std::vector<TokenKind> kinds(60, TokenKind::other);
  kinds[30] = TokenKind::special;
  run.pass({.tokens = 60, .last_of_prompt = true, .kinds = kinds});
  for (int head = 0; head < 2; ++head) {
    const std::vector<int> kept = run.kept(head);
    ASSERT_LT(kept.size(), 60U);
    for (const int position : {0, 1, 2, 3, 4, 30, 51, 52, 53, 54, 55, 56, 57, 58, 59})
      EXPECT_TRUE(std::binary_search(kept.begin(), kept.end(), position)) << position;
  }
}

TEST(Protect, WorksOverPoliciesThatRankWholeHeads) {
  test::Run<Protect<KeyDiff>, Dense<float>> run(conversation_script(53),
                                                {{.tokens_kept = 10}, 2, 3});
  run.pass({.tokens = 60, .last_of_prompt = true});
  const std::vector<int> kept = run.kept();
  ASSERT_EQ(kept.size(), 10U);
  EXPECT_EQ(kept[0], 0);
  EXPECT_EQ(kept[1], 1);
  EXPECT_EQ(std::vector<int>(kept.end() - 3, kept.end()), (std::vector<int>{57, 58, 59}));
}

// A prompt keeps its budget, also where it has fewer whole stretches than the budget asks for.
TEST(LagKV, KeepsItsBudgetWhateverItsStretches) {
  for (const int kept : {10, 40, 100, 140}) {
    test::Run<LagKV, Dense<float>> run(conversation_script(55), {.tokens_kept = kept, .lag = 32});
    run.pass({.tokens = 150, .last_of_prompt = true});
    EXPECT_EQ(static_cast<int>(run.kept().size()), kept);
    EXPECT_EQ(run.kept()[3], 3);
    EXPECT_EQ(run.kept().back(), 149);
  }
}

TEST(L2Norm, AHugeKeyIsNotDroppedUnderTheBudget) {
  BlockPool pool;
  KVCache<L2Norm, Dense<float>> cache(Shape{.layers = 3, .head_dim = 64}, {.when = When::step()},
                                      {}, pool);
  const std::vector<float> key(64, 1e38F);
  auto pass = cache.begin({});
  for (int layer = 0; layer < 3; ++layer) {
    pass->append(layer, std::span(key), std::span(key));
    pass->commit(layer);
  }
  for (int layer = 0; layer < 3; ++layer) EXPECT_EQ(cache.tokens(layer, 0), 1);
}

TEST(Every, ActsAsTheSameBatchDoes) {
  const Script script = conversation_script(54);
  test::Run<H2O, External> own(script, {.heavy = 9, .recent = 5, .when = When::full(6)});
  test::Run<Every<H2O, 6>, External> wrapped(script, {{.heavy = 9, .recent = 5}});
  for (const Turn& turn : conversation()) {
    own.pass(turn);
    wrapped.pass(turn);
    ASSERT_EQ(wrapped.kept(), own.kept());
  }
}

TEST(Random, IsUniformAndOtherInEachHead) {
  const Shape shape{.layers = 2, .query_heads = 2, .heads = 2};
  std::vector<int> times(100, 0);
  std::set<std::vector<int>> sets;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    test::Run<Random, External> run(conversation_script(1, shape),
                                    {.tokens_kept = 25, .seed = seed});
    run.pass({.tokens = 100, .last_of_prompt = true});
    for (int layer = 0; layer < 2; ++layer) {
      for (int head = 0; head < 2; ++head) {
        const std::vector<int> kept = run.kept(head, layer);
        ASSERT_EQ(kept.size(), 25U);
        sets.insert(kept);
        for (const int position : kept) ++times[static_cast<std::size_t>(position)];
      }
    }
  }
  EXPECT_EQ(sets.size(), 200U);
  // 200 draws at 1/4: 50 expected, standard deviation 6.1
  for (const int count : times) EXPECT_NEAR(count, 50, 28);
}

TEST(WrapperSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(Protect<TOVA>{{.tokens_kept = 6}, 4, 3}, {"Protect", "4 + 3", "budget, 6"});
  expect_policy_refused(Protect<TOVA>{{}, -1, 0}, {"Protect.sinks", "-1"});
  expect_policy_refused(Protect<TOVA>{{}, 0, -1}, {"Protect.newest", "-1"});
  expect_policy_refused(Every<H2O, 20>{{.heavy = 4, .recent = 4}}, {"when.batch", "20", "8"});
  expect_policy_refused(Every<H2O, 6>{{.heavy = 4, .recent = 4}},
                        {"Every<H2O, 6>", "when.batch is 6, must be at most 5", "budget, 8, 4"});
  expect_policy_refused(H2O{.heavy = 0, .recent = 0}, {"H2O", "0", "at least 1"});
  expect_policy_refused(Random{.tokens_kept = 0}, {"Random.tokens_kept", "0"});
  expect_policy_refused(Random{.tokens_kept = 5, .recent = 6}, {"Random.tokens_kept", "6"});
  expect_policy_refused(KeyDiff{.tokens_kept = 0}, {"KeyDiff.tokens_kept", "0"});
  expect_policy_refused(LagKV{.lag = 1}, {"LagKV.lag", "1"});
  expect_policy_refused(LagKV{.sinks = -1}, {"LagKV.sinks", "-1"});
  expect_policy_refused(ExpectedAttention{.future = 0}, {"ExpectedAttention.future", "0"});
  expect_policy_refused(ExpectedAttention{.tokens_kept = 3}, {"ExpectedAttention.tokens_kept"});
  expect_policy_refused(KeyDiff{}, {"keys and values", "External"});
}

TEST(ExpectedAttentionPrompts, MustComeWholeAndBeAttended) {
  BlockPool pool;
  KVCache<ExpectedAttention, Dense<float>> cache(Shape{.head_dim = 8}, {}, {}, pool);
  expect_refused([&] { (void)cache.begin({.tokens = 3, .more_of_prompt = true}); },
                 {"more_of_prompt", "ExpectedAttention", "one pass"});
  const std::vector<float> numbers(64 * 8, 1.0F);
  {
    auto pass = cache.begin({.tokens = 64, .last_of_prompt = true});
    pass->append(0, std::span(numbers), std::span(numbers));
    expect_refused([&] { pass->commit(0); }, {"commit", "out of order"});
    const std::vector<float> weights(64 * 64, 0.1F);
    expect_refused(
        [&] {
          pass->observe(0, {weights.data(), 64, 64});
        },
        {"observe", "ExpectedAttention", "queries"});
  }
  auto pass = cache.begin({.tokens = 5});
  pass->append(0, std::span(numbers).first(40), std::span(numbers).first(40));
  std::vector<float> output(40);
  pass->attend(0, std::span(numbers).first(40), std::span(output));
  pass->commit(0);
  expect_refused([&] { (void)cache.begin({.tokens = 3, .last_of_prompt = true}); },
                 {"last_of_prompt", "5 tokens", "ExpectedAttention"});
}

// A softmax of another scale is the same as queries of another length.
TEST(ExpectedAttentionPrompts, ExpectWeightsOfTheScaleInUse) {
  const auto numbers = [](std::uint64_t seed) {
    std::vector<float> made;
    for (int at = 0; at < 64 * 8; ++at)
      made.push_back(static_cast<float>(noise(seed, at, 0, 0) - 0.5));
    return made;
  };
  const std::vector<float> keys = numbers(60);
  const std::vector<float> values = numbers(61);
  const std::vector<float> queries = numbers(62);
  const auto kept = [&](float longer, float scale) {
    BlockPool pool;
    KVCache<ExpectedAttention, Dense<float>> cache(Shape{.head_dim = 8}, {.tokens_kept = 20}, {},
                                                   pool);
    std::vector<float> turned = queries;
    for (float& number : turned) number *= longer;
    std::vector<float> output(64 * 8);
    auto pass = cache.begin({.tokens = 64, .last_of_prompt = true});
    pass->append(0, std::span(keys), std::span(values));
    pass->attend(0, std::span<const float>(turned), std::span(output), {.scale = scale});
    pass->commit(0);
    return cache.kept(0, 0);
  };
  EXPECT_EQ(kept(1.0F, 8.0F), kept(8.0F, 1.0F));
  EXPECT_NE(kept(1.0F, 8.0F), kept(1.0F, 0.0F)) << "the scale must matter for this test";
}

TEST(ExpectedAttentionPrompts, MayHaveGapsInTheirPositions) {
  BlockPool pool;
  const Rope rope = Rope::plain(8, 1e4, Pairing::halves);
  KVCache<ExpectedAttention, Dense<float>> cache(Shape{.head_dim = 8}, {.tokens_kept = 20}, {},
                                                 pool, {.rope = rope});
  std::vector<int> positions;
  for (int token = 0; token < 64; ++token) positions.push_back(token * 1000);
  positions.back() = 1 << 29;  // no table may grow to it
  const std::vector<float> numbers(64 * 8, 1.0F);
  std::vector<float> output(64 * 8);
  auto pass = cache.begin({.tokens = 64, .last_of_prompt = true, .positions = positions});
  pass->append(0, std::span(numbers), std::span(numbers));
  pass->attend(0, std::span(numbers), std::span(output));
  pass->commit(0);
  EXPECT_EQ(cache.tokens(0, 0), 20);
}

}  // namespace
}  // namespace kvast::test

// SPDX-License-Identifier: Apache-2.0
// Pyramid and its schedules: exact totals, also of short prompts and of some of the layers.
#include "tests/policy/counts.h"

namespace kvast::test {
namespace {

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
      const auto end = std::begin(budgets.tokens) + layers;
      EXPECT_EQ(std::accumulate(std::begin(budgets.tokens), end, 0), layers * mean);
      EXPECT_TRUE(std::is_sorted(std::begin(budgets.tokens), end, std::greater<>()));
      EXPECT_GT(*(end - 1), window);
    }
  }
  const LayerBudgets ours = pyramid(32, 128, 8);
  EXPECT_EQ(ours.tokens[0], 8 + 234);  // as the authors' first and last layer
  EXPECT_EQ(ours.tokens[31], 8 + 6);
}

TEST(PyramidBudgets, FunnelsWidenAndKeepTheTotal) {
  const LayerBudgets budgets = funnel(30, 100, 0.5);
  EXPECT_EQ(std::accumulate(std::begin(budgets.tokens), std::end(budgets.tokens), 0), 3000);
  EXPECT_TRUE(std::is_sorted(std::begin(budgets.tokens), std::begin(budgets.tokens) + 30));
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

// 20 tokens on average, 35 in the first layer by the paper: of a prompt of 28 the line begins
// there.
TEST(Pyramid, KeepsItsTotalOfAShortPrompt) {
  const Shape shape{.layers = 7, .query_heads = 1};
  for (const int prompt : {20, 21, 22, 25, 28, 33, 35, 36, 90}) {
    const auto counts =
        counts_after_prompt(Pyramid<SnapKV>{{.tokens_kept = 20, .window = 4}, 20.0}, shape, prompt);
    EXPECT_EQ(total_of(counts), 7 * 20) << prompt;
    EXPECT_TRUE(std::is_sorted(counts.rbegin(), counts.rend())) << prompt;
    EXPECT_EQ(counts[0][0], std::min(prompt, 35)) << prompt;
    const LayerBudgets expected = pyramid(7, 20, 4, 20.0, prompt);
    for (std::size_t layer = 0; layer < 7; ++layer)
      EXPECT_EQ(counts[layer][0], expected.tokens[layer]) << prompt;
  }
}

// A policy that acts in each step: the line grows steeper with the sequence, and is never short of
// tokens that went before.
TEST(Pyramid, KeepsItsTotalInEveryStepAfterAShortPrompt) {
  const Shape shape{.layers = 5, .query_heads = 1};
  test::Run<Pyramid<TOVA>, Dense<float>> run(conversation_script(41, shape),
                                             {{.tokens_kept = 20}, 20.0});
  run.pass({.tokens = 12, .last_of_prompt = true});
  for (int seen = 13; seen <= 60; ++seen) {
    run.pass({});
    int total = 0;
    for (int layer = 0; layer < 5; ++layer) total += run.cache().tokens(layer, 0);
    EXPECT_EQ(total, 5 * std::min(seen, 20)) << seen;
  }
  EXPECT_EQ(run.cache().tokens(0, 0), 39);
  EXPECT_EQ(run.cache().tokens(4, 0), 1);
}

// Tokens count, not positions: a prompt with gaps is no longer for it.
TEST(Pyramid, CountsTokensAndNotPositions) {
  BlockPool pool;
  KVCache<Pyramid<kvast::Random>, External> cache(
      Shape{.layers = 5, .head_dim = 8}, {{.tokens_kept = 20, .when = When::prompt()}, 20.0}, {},
      pool);
  std::vector<int> positions(24);
  for (int token = 0; token < 24; ++token) positions[static_cast<std::size_t>(token)] = 9 * token;
  for (int turn = 0; turn < 2; ++turn) {  // clear() starts the count again
    auto pass = cache.begin({.tokens = 24, .last_of_prompt = true, .positions = positions});
    int total = 0;
    for (int layer = 0; layer < 5; ++layer) {
      pass->append(layer);
      pass->commit(layer);
      total += cache.tokens(layer, 0);
    }
    EXPECT_EQ(total, 5 * 20);
    auto fork = cache.fork();
    ASSERT_TRUE(fork);
    auto more = fork->begin({.tokens = 4, .last_of_prompt = true});
    int after = 0;
    for (int layer = 0; layer < 5; ++layer) {
      more->append(layer);
      more->commit(layer);
      after += fork->tokens(layer, 0);
    }
    EXPECT_EQ(after, 5 * 20);
    EXPECT_EQ(fork->tokens(0, 0), 28);
    cache.clear();
  }
}

// The schedule is that of the layers that this part decides for, also where only some heads of a
// layer are its own.
TEST(Pyramid, SpreadsOverTheLayersOfItsPart) {
  const Shape shape{.layers = 7, .query_heads = 2, .heads = 2};
  const Pyramid<SnapKV> snap{{.tokens_kept = 20, .window = 4}, 20.0};
  const LayerBudgets five = pyramid(5, 20, 4);
  const auto mixed = counts_after_prompt(
      PerLayer<Full, Pyramid<SnapKV>>{{}, snap, LayerSet{}.add(1).add(4)}, shape, 90);
  const LayerBudgets two = pyramid(2, 20, 4);
  const auto listed = counts_after_prompt(
      PerLayer<Pyramid<SnapKV>, Full>{snap, {}, LayerSet{}.add(1).add(4)}, shape, 90);
  std::size_t place = 0;
  for (std::size_t layer = 0; layer < 7; ++layer) {
    if (layer == 1 || layer == 4) {
      EXPECT_EQ(mixed[layer], (std::vector<int>(2, 90)));
      EXPECT_EQ(listed[layer], (std::vector<int>(2, two.tokens[layer == 1 ? 0 : 1])));
    } else {
      EXPECT_EQ(mixed[layer], (std::vector<int>(2, five.tokens[place++]))) << layer;
      EXPECT_EQ(listed[layer], (std::vector<int>(2, 90)));
    }
  }
  HeadSet whole;
  for (const int layer : {1, 4}) whole.add(layer, 0).add(layer, 1);
  whole.add(3, 0);
  const auto heads = counts_after_prompt(
      PrefillThenDecode<PerHead<Full, Pyramid<SnapKV>>, Full>{{{}, snap, whole}, {}}, shape, 90);
  place = 0;
  for (std::size_t layer = 0; layer < 7; ++layer) {
    const bool kept_whole = layer == 1 || layer == 4;
    EXPECT_EQ(heads[layer][1], kept_whole ? 90 : five.tokens[place++]) << layer;
    if (layer == 3) {
      EXPECT_EQ(heads[layer][0], 90);
    }
  }
}

/// A policy whose budgets differ by layer already: the total is theirs.
struct Growing {
  static constexpr Needs needs{};
  struct State {};
  float rank(Token t, State) const { return static_cast<float>(t.position); }
  Budget budget(Layer layer) const { return tokens(10 + 3 * layer.index); }
};
TEST(Pyramid, KeepsTheTotalOfBudgetsThatDiffer) {
  const Shape shape{.layers = 4, .query_heads = 1};
  EXPECT_EQ(total_of(counts_after_prompt(Pyramid<Growing>{{}, 5.0}, shape, 90)), 10 + 13 + 16 + 19);
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

}  // namespace
}  // namespace kvast::test

// SPDX-License-Identifier: Apache-2.0
// Full keeps everything, and asks for nothing.
#include <numeric>

#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

template <class Storage>
class FullTest : public testing::Test {};
TYPED_TEST_SUITE(FullTest, Storages, StorageNames);

TYPED_TEST(FullTest, KeepsEveryTokenOfAConversation) {
  const Script script = conversation_script(1);
  Run<Full, TypeParam> run(script, Full{});
  int length = 0;
  for (const Turn& turn : conversation()) {
    run.pass(turn);
    length += turn.tokens;
    std::vector<int> all(static_cast<std::size_t>(length));
    std::iota(all.begin(), all.end(), 0);
    for (int head = 0; head < script.shape.heads; ++head) EXPECT_EQ(run.kept(head), all);
  }
  EXPECT_EQ(run.cache().stats().evicted, 0);
}

/// Collects the weights of the first queries that a token sees; keeps everything.
struct Collector {
  static constexpr Needs needs{.attention = true};
  struct State {
    float weight[10] = {};
    int visible[10] = {};
  };
  std::vector<State>* seen;

  void observe(State& state, Attention attention) const {
    state.weight[attention.step] = attention.weight;
    state.visible[attention.step] = attention.visible;
  }
  struct Head {};
  Head summarize(Token token, State state) const {
    seen->resize(std::max(seen->size(), static_cast<std::size_t>(token.position) + 1));
    (*seen)[static_cast<std::size_t>(token.position)] = state;
    return {};
  }
  Head merge(Head, Head) const { return {}; }
  float rank(Token, State, Head) const { return kPin; }
};

TYPED_TEST(FullTest, ObservedRowsOfTheTraceAreTheGoldenOnes) {
  std::vector<Collector::State> seen;
  Run<Collector, TypeParam> run(trace(), Collector{&seen});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  const std::vector<std::vector<double>> golden{
      {.0080, .4348, .0588, .0048, .0588, .4348},
      {.3212, .0717, .0097, .1948, .0097, .0717, .3212},
      {.0487, .0109, .3596, .0295, .3596, .0109, .0487, .1323}};
  for (int step = 5; step < kTracePrompt; ++step) {
    const std::vector<double>& row = golden[static_cast<std::size_t>(step - 5)];
    for (std::size_t position = 0; position < row.size(); ++position) {
      EXPECT_NEAR(seen.at(position).weight[step], row[position], 5.1e-5) << step << ' ' << position;
      EXPECT_EQ(seen.at(position).visible[step], step + 1);
    }
  }
}

}  // namespace
}  // namespace kvast::test

// SPDX-License-Identifier: Apache-2.0
// Scissorhands against the golden trace and against its definition.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

/// Remembers every query that saw an entry, and whether it cared.
class ScissorhandsRules : public Rules {
 public:
  explicit ScissorhandsRules(Scissorhands settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (const Row& row : rows) {
      for (std::size_t at = 0; at < line.size(); ++at) {
        if (row.weights[at] < 0.0) continue;
        const double share = row.weights[at] * row.visible;
        if (row.visible > 1) margin = std::min(margin, std::abs(share - 1.0));
        if (row.visible > 1 && share < 1.0) line[at].important.push_back(row.step);
      }
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    for (Line& line : heads) {
      const auto live = static_cast<int>(line.size());
      const int target = cut_to(settings_.when, settings_.tokens_kept, live, moment.ends_prompt);
      if (target < 0) continue;
      for (Entry& entry : line) {
        const int since = std::max(entry.position, moment.newest - settings_.window + 1);
        const auto low =
            std::count_if(entry.important.begin(), entry.important.end(),
                          [&](int step) { return step > moment.newest - settings_.window; });
        entry.score = -static_cast<double>(low) / (moment.newest - since + 1);
      }
      const auto pinned = [&](const Entry& entry) {
        return moment.newest - entry.position < settings_.recent;
      };
      double exact = 1.0;  // rates of equal counts tie exactly, here as there
      keep_best(line, target, pinned, exact);
    }
  }

 private:
  Scissorhands settings_;
};

template <class Storage>
class ScissorhandsTest : public testing::Test {};
TYPED_TEST_SUITE(ScissorhandsTest, Storages, StorageNames);

TYPED_TEST(ScissorhandsTest, DropsTheGoldenThreeOfTheTrace) {
  const Scissorhands policy{.tokens_kept = 7, .recent = 2, .window = 4, .when = When::full(3)};
  Run<Scissorhands, TypeParam> run(trace(), policy);
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{2, 4, 5, 6, 7}));
}

TYPED_TEST(ScissorhandsTest, CountsTheGoldenQueriesOfTheTrace) {
  const Scissorhands policy{.tokens_kept = 7, .recent = 2, .window = 4, .when = When::full(3)};
  std::vector<Scissorhands::State> seen;
  Run<Probe<Scissorhands>, TypeParam> run(trace(), {.inner = policy, .seen = &seen});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  std::vector<int> low;
  for (const auto& state : seen) low.push_back(std::popcount(state.low[0]));
  EXPECT_EQ(low, (std::vector<int>{3, 3, 2, 3, 2, 2, 1, 0}));
}

TYPED_TEST(ScissorhandsTest, KeepsWhatTheDefinitionKeeps) {
  for (const int window : {1, 7, 40}) {
    for (const When when : {When::full(8), When::step(), When::prompt()}) {
      const Scissorhands policy{.tokens_kept = 16, .recent = 3, .window = window, .when = when};
      expect_simulated<TypeParam>(conversation_script(404), conversation(), policy,
                                  [&] { return std::make_unique<ScissorhandsRules>(policy); });
    }
  }
}

TEST(Scissorhands, AGapInPositionsLeavesNoOldBits) {
  const Scissorhands policy{.window = 8};
  Scissorhands::State state;
  for (int step = 0; step < 8; ++step) policy.observe(state, {.visible = 10, .step = step});
  EXPECT_EQ(std::popcount(state.low[0]), 8);
  policy.observe(state, {.weight = 1.0F, .visible = 10, .step = 11});  // 8, 9 and 10 were not seen
  EXPECT_EQ(std::popcount(state.low[0]), 4);
  policy.observe(state, {.weight = 1.0F, .visible = 10, .step = 100});
  EXPECT_EQ(std::popcount(state.low[0]), 0);
}

TEST(ScissorhandsSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(Scissorhands{.window = 0}, {"Scissorhands.window", "0"});
  expect_policy_refused(Scissorhands{.window = 417}, {"Scissorhands.window", "417", "416"});
  expect_policy_refused(Scissorhands{.recent = -1}, {"Scissorhands.recent", "-1"});
  expect_policy_refused(Scissorhands{.tokens_kept = 5}, {"Scissorhands.tokens_kept", "5", "10"});
  expect_policy_refused(Scissorhands{.tokens_kept = 100}, {"when.batch", "256", "budget, 100"});
}

}  // namespace
}  // namespace kvast::test

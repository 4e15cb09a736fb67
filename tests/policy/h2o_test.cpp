// SPDX-License-Identifier: Apache-2.0
// H2O against the golden trace and against its definition, by plain sums and by lifetime.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

class H2ORules : public Rules {
 public:
  explicit H2ORules(H2O settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (const Row& row : rows) {
      for (std::size_t at = 0; at < line.size(); ++at)
        if (row.weights[at] >= 0.0) line[at].sum += row.weights[at];
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    const int budget = settings_.heavy + settings_.recent;
    for (Line& line : heads) {
      for (Entry& entry : line) {
        const int queries = moment.newest - entry.position + 1;  // those that could see it
        entry.score = settings_.by_lifetime ? entry.sum / queries : entry.sum;
      }
      const auto live = static_cast<int>(line.size());
      const int target = cut_to(settings_.when, budget, live, moment.ends_prompt);
      if (target < 0) continue;
      const auto pinned = [&](const Entry& entry) {
        return moment.newest - entry.position < settings_.recent;
      };
      keep_best(line, target, pinned, margin);
    }
  }

 private:
  H2O settings_;
};

template <class Storage>
class H2OTest : public testing::Test {};
TYPED_TEST_SUITE(H2OTest, Storages, StorageNames);

TYPED_TEST(H2OTest, SumsTheTraceByColumns) {
  std::vector<H2O::State> seen;
  Run<Probe<H2O>, TypeParam> run(trace(), {.inner = {.heavy = 2, .recent = 2}, .seen = &seen});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  const std::vector<double> sums{2.909418, 0.859037, 1.747247, 0.591810,
                                 0.873033, 0.517296, 0.369878, 0.132282};
  ASSERT_EQ(seen.size(), sums.size());
  for (std::size_t position = 0; position < sums.size(); ++position)
    EXPECT_NEAR(seen[position].mass, sums[position], 1.5e-6) << position;
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 6, 7}));

  run.pass({});  // 8
  EXPECT_NEAR(seen.at(0).mass, 2.969699, 1.5e-6);
  EXPECT_NEAR(seen.at(2).mass, 2.192665, 1.5e-6);
  EXPECT_NEAR(seen.at(6).mass, 0.430159, 1.5e-6);
  EXPECT_NEAR(seen.at(7).mass, 0.296142, 1.5e-6);
  EXPECT_NEAR(seen.at(8).mass, 0.270160, 1.5e-6);
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 7, 8}));

  run.pass({});  // 9: the most attended key goes, the bias of plain sums
  EXPECT_NEAR(seen.at(0).mass, 3.233892, 1.5e-6);
  EXPECT_NEAR(seen.at(2).mass, 2.200643, 1.5e-6);
  EXPECT_NEAR(seen.at(7).mass, 1.014293, 1.5e-6);
  EXPECT_NEAR(seen.at(8).mass, 0.274999, 1.5e-6);
  EXPECT_NEAR(seen.at(9).mass, 0.004839, 1.5e-6);
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 8, 9}));
}

TYPED_TEST(H2OTest, KeepsTheGoldenSetsOfTheTrace) {
  Run<H2O, TypeParam> run(trace(), H2O{.heavy = 2, .recent = 2});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 6, 7}));
  run.pass({});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 7, 8}));
  run.pass({});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 8, 9}));
}

TYPED_TEST(H2OTest, SumsDoNotDependOnHowThePromptArrived) {
  for (const std::vector<int>& chunks : {std::vector<int>{3, 5}, {1, 1, 1, 5}, {7, 1}}) {
    std::vector<H2O::State> seen;
    Run<Probe<H2O>, TypeParam> run(
        trace(), {.inner = {.heavy = 2, .recent = 2, .when = When::prompt()}, .seen = &seen});
    for (std::size_t at = 0; at < chunks.size(); ++at) {
      const bool last = at + 1 == chunks.size();
      run.pass({.tokens = chunks[at], .last_of_prompt = last, .more_of_prompt = !last});
    }
    EXPECT_NEAR(seen.at(0).mass, 2.909418, 1.5e-6);
    EXPECT_NEAR(seen.at(3).mass, 0.591810, 1.5e-6);
    EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 6, 7}));
  }
}

TYPED_TEST(H2OTest, KeepsWhatTheDefinitionKeepsWheneverItActs) {
  for (const When when : {When::step(), When::prompt(), When::full(1), When::full(6)}) {
    const H2O policy{.heavy = 9, .recent = 7, .when = when};
    expect_simulated<TypeParam>(conversation_script(3), conversation(), policy,
                                [&] { return std::make_unique<H2ORules>(policy); });
  }
}

TYPED_TEST(H2OTest, DividesByLifetimeWhereAsked) {
  for (const When when : {When::step(), When::full(6)}) {
    const H2O policy{.heavy = 9, .recent = 7, .by_lifetime = true, .when = when};
    expect_simulated<TypeParam>(conversation_script(4), conversation(), policy,
                                [&] { return std::make_unique<H2ORules>(policy); });
  }
}

TYPED_TEST(H2OTest, ByLifetimeFreesTheNewerTokensOfTheTrace) {
  // sums 2.909418 .859037 1.747247 .591810 .873033 .517296 over lifetimes 8 7 6 5 4 3
  Run<H2O, TypeParam> run(trace(), H2O{.heavy = 3, .recent = 2, .by_lifetime = true});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 4, 6, 7}));
  Run<H2O, TypeParam> four(trace(), H2O{.heavy = 4, .recent = 2, .by_lifetime = true});
  four.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(four.kept(), (std::vector<int>{0, 2, 4, 5, 6, 7}));
  Run<H2O, TypeParam> sums(trace(), H2O{.heavy = 4, .recent = 2});
  sums.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(sums.kept(), (std::vector<int>{0, 1, 2, 4, 6, 7}));
}

TYPED_TEST(H2OTest, ReducesTheGroupAsAsked) {
  for (const Reduce reduce : {Reduce::mean, Reduce::sum, Reduce::max}) {
    const H2O of_policy{.heavy = 9, .recent = 7, .reduce = reduce};
    expect_simulated<TypeParam>(conversation_script(5), conversation(), of_policy,
                                [&] { return std::make_unique<H2ORules>(of_policy); });
    const H2O plain{.heavy = 9, .recent = 7};
    expect_simulated<TypeParam>(
        conversation_script(5), conversation(), plain,
        [&] { return std::make_unique<H2ORules>(plain); }, reduce);
  }
}

TYPED_TEST(H2OTest, WorksWithOnlyOneOfTheTwoShares) {
  for (const H2O policy : {H2O{.heavy = 11, .recent = 0}, H2O{.heavy = 0, .recent = 11}}) {
    expect_simulated<TypeParam>(conversation_script(6), conversation(), policy,
                                [&] { return std::make_unique<H2ORules>(policy); });
  }
}

TEST(H2OSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(H2O{.heavy = -3}, {"H2O.heavy", "-3"});
  expect_policy_refused(H2O{.recent = -5}, {"H2O.recent", "-5"});
  expect_policy_refused(H2O{.heavy = 0, .recent = 0}, {"budget of layer 0", "is 0", "at least 1"});
  expect_policy_refused(H2O{.when = When::full(0)}, {"when.batch", "0", "at least 1"});
  expect_policy_refused(H2O{.heavy = 4, .recent = 4, .when = When::full(9)},
                        {"when.batch", "9", "budget, 8"});
  expect_policy_refused(H2O{.heavy = 2147483647, .recent = 2}, {"H2O.heavy", "2147483647"});
}

}  // namespace
}  // namespace kvast::test

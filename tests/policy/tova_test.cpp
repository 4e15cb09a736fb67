// SPDX-License-Identifier: Apache-2.0
// TOVA against the golden trace and against its definition: one set per layer, by the newest query.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"
#include "tests/support/random.h"

namespace kvast::test {
namespace {

class TOVARules : public Rules {
 public:
  explicit TOVARules(TOVA settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (std::size_t at = 0; at < line.size(); ++at) line[at].sum = rows.back().weights[at];
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    const auto live = static_cast<int>(heads[0].size());
    const int target = cut_to(settings_.when, settings_.tokens_kept, live, moment.ends_prompt);
    if (target < 0) return;
    for (std::size_t at = 0; at < heads[0].size(); ++at) {
      double mean = 0.0;
      for (const Line& line : heads) mean += line[at].sum / static_cast<double>(heads.size());
      for (Line& line : heads) line[at].score = mean;
    }
    const auto pinned = [&](const Entry& entry) {
      return moment.newest - entry.position < settings_.recent;
    };
    for (Line& line : heads) keep_best(line, target, pinned, margin);
  }

 private:
  TOVA settings_;
};

template <class Storage>
class TOVATest : public testing::Test {};
TYPED_TEST_SUITE(TOVATest, Storages, StorageNames);

TYPED_TEST(TOVATest, KeepsTheGoldenSetOfTheTrace) {
  Run<TOVA, TypeParam> run(trace(), TOVA{.tokens_kept = 5});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 2, 4, 6, 7}));
}

TYPED_TEST(TOVATest, TheNewestTokenItselfMayGoUnlessProtected) {
  const auto all_but_newest = [](int, int step, int position) {
    return position == step ? -4.0 : 0.1 * position;
  };
  const Script script{.shape = {.head_dim = 16, .value_dim = 8}, .logits = all_but_newest};
  Run<TOVA, TypeParam> free(script, TOVA{.tokens_kept = 3});
  free.pass({.tokens = 5, .last_of_prompt = true});
  EXPECT_EQ(free.kept(), (std::vector<int>{1, 2, 3}));
  Run<TOVA, TypeParam> safe(script, TOVA{.tokens_kept = 3, .recent = 1});
  safe.pass({.tokens = 5, .last_of_prompt = true});
  EXPECT_EQ(safe.kept(), (std::vector<int>{2, 3, 4}));
}

TYPED_TEST(TOVATest, KeepsOneSetForAllHeads) {
  const Script script = conversation_script(7, {.query_heads = 6, .heads = 3});
  Run<TOVA, TypeParam> run(script, TOVA{.tokens_kept = 13});
  for (const Turn& turn : conversation()) {
    run.pass(turn);
    EXPECT_EQ(run.kept(1), run.kept(0));
    EXPECT_EQ(run.kept(2), run.kept(0));
  }
}

TYPED_TEST(TOVATest, KeepsWhatTheDefinitionKeepsWheneverItActs) {
  for (const When when : {When::step(), When::prompt(), When::full(1), When::full(6)}) {
    for (const int recent : {0, 3}) {
      const TOVA policy{.tokens_kept = 14, .recent = recent, .when = when};
      expect_simulated<TypeParam>(conversation_script(8), conversation(), policy,
                                  [&] { return std::make_unique<TOVARules>(policy); });
    }
  }
}

TYPED_TEST(TOVATest, ReducesTheGroupAsTheCacheAsks) {
  const TOVA policy{.tokens_kept = 14};
  for (const Reduce reduce : {Reduce::mean, Reduce::sum, Reduce::max}) {
    expect_simulated<TypeParam>(
        conversation_script(9), conversation(), policy,
        [&] { return std::make_unique<TOVARules>(policy); }, reduce);
  }
}

// What a sliding window hides got nothing from the newest query, whatever it got before.
TEST(TOVA, TokensOutsideASlidingWindowGoFirst) {
  BlockPool pool;
  KVCache<TOVA, Dense<float>> cache(Shape{.head_dim = 8}, {.tokens_kept = 20}, {}, pool);
  test::Random random(3);
  for (const int tokens : {1, 9, 1}) {
    for (int turn = 0; turn < 20; ++turn) {
      const auto numbers = random.normals(static_cast<std::size_t>(tokens) * 8);
      std::vector<float> output(numbers.size());
      auto pass = cache.begin({.tokens = tokens});
      pass->append(0, std::span(numbers), std::span(numbers));
      pass->attend(0, std::span(numbers), std::span(output), {.window = 8});
      pass->commit(0);
    }
    const std::vector<int> kept = cache.kept(0, 0);
    ASSERT_EQ(kept.size(), 20U);
    for (int age = 0; age < 8; ++age)
      EXPECT_EQ(kept[kept.size() - 1 - static_cast<std::size_t>(age)], cache.length() - 1 - age);
    EXPECT_EQ(kept.front(), cache.length() - 20) << "of equals the newer stay";
  }
}

TEST(TOVASettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(TOVA{.tokens_kept = 0}, {"TOVA.tokens_kept", "0", "at least 1"});
  expect_policy_refused(TOVA{.tokens_kept = 4, .recent = 5},
                        {"TOVA.tokens_kept", "4", "recent, 5"});
  expect_policy_refused(TOVA{.recent = -1}, {"TOVA.recent", "-1"});
  expect_policy_refused(TOVA{.tokens_kept = 4, .when = When::full(5)},
                        {"when.batch", "5", "budget, 4"});
  expect_policy_refused(TOVA{.when = When::full(-2)}, {"when.batch", "-2"});
}

}  // namespace
}  // namespace kvast::test

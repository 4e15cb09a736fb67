// SPDX-License-Identifier: Apache-2.0
// CORM against the golden trace and against its definition, decided exactly and lazily.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

/// Remembers every query that cared for an entry, where the library remembers the last.
class CormRules : public Rules {
 public:
  explicit CormRules(Corm settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (const Row& row : rows) {
      for (std::size_t at = 0; at < line.size(); ++at) {
        if (row.weights[at] < 0.0) continue;
        const double share = row.weights[at] * row.visible;
        if (row.visible > 1) margin = std::min(margin, std::abs(share - 1.0));
        if (row.visible == 1 || share >= 1.0) line[at].important.push_back(row.step);
      }
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    if (!clock_.due(settings_.when, moment)) return;
    for (Line& line : heads) {
      std::erase_if(line, [&](const Entry& entry) {
        const bool is_recent = moment.newest - entry.position < settings_.recent;
        const bool mattered =
            std::any_of(entry.important.begin(), entry.important.end(),
                        [&](int step) { return step > moment.newest - settings_.window; });
        return !is_recent && !mattered;
      });
      if (settings_.cap < 0) continue;
      for (Entry& entry : line) entry.score = entry.important.empty() ? -1 : entry.important.back();
      double exact = 1.0;  // equal steps tie exactly
      keep_best(
          line, std::min(settings_.cap, static_cast<int>(line.size())),
          [&](const Entry& entry) { return moment.newest - entry.position < settings_.recent; },
          exact);
    }
  }

 private:
  Corm settings_;
  Clock clock_;
};

template <class Storage>
class CormTest : public testing::Test {};
TYPED_TEST_SUITE(CormTest, Storages, StorageNames);

TYPED_TEST(CormTest, KeepsTheGoldenSetsOfTheTrace) {
  const std::vector<std::vector<int>> golden{
      {2, 4, 6, 7}, {0, 2, 3, 4, 6, 7}, {0, 1, 2, 3, 4, 5, 6, 7}};
  for (int window = 1; window <= 3; ++window) {
    Run<Corm, TypeParam> run(trace(), Corm{.window = window, .recent = 2});
    run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
    EXPECT_EQ(run.kept(), golden[static_cast<std::size_t>(window - 1)]) << "window " << window;
  }
}

TYPED_TEST(CormTest, KeepsWhatTheDefinitionKeepsDecidedEachStep) {
  for (const int window : {1, 5, 20}) {
    const Corm policy{.window = window, .recent = 6};
    expect_simulated<TypeParam>(conversation_script(110), conversation(), policy,
                                [&] { return std::make_unique<CormRules>(policy); });
  }
}

TYPED_TEST(CormTest, KeepsWhatTheDefinitionKeepsDecidedLazily) {
  for (const When when : {When::full(1), When::full(4), When::full(11), When::prompt()}) {
    const Corm policy{.window = 5, .recent = 6, .when = when};
    expect_simulated<TypeParam>(conversation_script(11), conversation(), policy,
                                [&] { return std::make_unique<CormRules>(policy); });
  }
}

TYPED_TEST(CormTest, ACapDropsWhatMatteredLongestAgo) {
  const Corm policy{.window = 30, .recent = 4, .cap = 10};
  expect_simulated<TypeParam>(conversation_script(110), conversation(), policy,
                              [&] { return std::make_unique<CormRules>(policy); });
}

TYPED_TEST(CormTest, ACapThatIsNeverReachedChangesNothing) {
  const Corm free{.window = 5, .recent = 6, .when = When::full(4)};
  Corm capped = free;
  capped.cap = 1000;
  const Script script = conversation_script(12);
  Run<Corm, TypeParam> one(script, free);
  Run<Corm, TypeParam> two(script, capped);
  for (const Turn& turn : conversation()) {
    one.pass(turn);
    two.pass(turn);
    ASSERT_EQ(one.kept(), two.kept());
  }
}

TYPED_TEST(CormTest, AWindowMayBeLongerThanAPass) {
  const Corm policy{.window = 30, .recent = 2};
  std::vector<Turn> turns(90, Turn{});
  turns[0] = {.tokens = 8, .last_of_prompt = true};
  turns[40] = {.tokens = 33};
  expect_simulated<TypeParam>(conversation_script(112), turns, policy,
                              [&] { return std::make_unique<CormRules>(policy); });
}

TYPED_TEST(CormTest, LazyIsNotExact) {
  const Script script = conversation_script(13);
  Run<Corm, TypeParam> exact(script, Corm{.window = 3, .recent = 4});
  Run<Corm, TypeParam> lazy(script, Corm{.window = 3, .recent = 4, .when = When::full(8)});
  bool differed = false;
  for (const Turn& turn : conversation()) {
    exact.pass(turn);
    lazy.pass(turn);
    differed = differed || exact.kept() != lazy.kept();
  }
  EXPECT_TRUE(differed);
}

TYPED_TEST(CormTest, MaximumOfTheGroupMeansAnyOfIt) {
  for (const Reduce reduce : {Reduce::mean, Reduce::max}) {
    const Corm policy{.window = 3, .recent = 4, .reduce = reduce};
    expect_simulated<TypeParam>(conversation_script(114), conversation(), policy,
                                [&] { return std::make_unique<CormRules>(policy); });
  }
}

TYPED_TEST(CormTest, ExactlyAUniformShareCounts) {
  const auto flat = [](int, int, int) { return 0.0; };
  const Script script{.shape = {.head_dim = 16, .value_dim = 8}, .logits = flat};
  Run<Corm, TypeParam> run(script, Corm{.window = 1, .recent = 1});
  for (int step = 0; step < 16; ++step) {
    run.pass({});
    const int tokens = run.cache().tokens(0, 0);
    // 1 / n * n is 1 in float for these n: nothing is minor
    EXPECT_EQ(tokens, step + 1);
  }
}

// Each head pays for what it keeps, to a block.
TEST(Corm, BytesFollowEachHeadsTokens) {
  const Shape shape{.query_heads = 8, .heads = 4};
  test::Run<Corm, Dense<float>> run(conversation_script(47, shape), {.window = 2, .recent = 4});
  run.pass({.tokens = 150, .last_of_prompt = true});
  std::size_t blocks = 0;
  int fewest = 150;
  int most = 0;
  for (int head = 0; head < 4; ++head) {
    const int kept = run.cache().tokens(0, head);
    blocks += static_cast<std::size_t>(kept + 31) / 32;
    fewest = std::min(fewest, kept);
    most = std::max(most, kept);
  }
  EXPECT_LT(fewest, most) << "heads must differ for this test to mean anything";
  EXPECT_LT(most, 118);
  const std::size_t payload = 32 * sizeof(float) * (160 + 8);
  const std::size_t side = 32 * (sizeof(int) + sizeof(Corm::State)) + 128;
  const std::size_t list = 64;  // of each head's pointers to its blocks
  EXPECT_LE(run.cache().bytes_in_use(), blocks * (payload + side) + 4 * list);
  EXPECT_GE(run.cache().bytes_in_use(), blocks * payload);
}

TEST(CormSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(Corm{.window = 0}, {"Corm.window", "0"});
  expect_policy_refused(Corm{.recent = 0}, {"Corm.recent", "0", "at least 1"});
  expect_policy_refused(Corm{.when = When::full(0)}, {"when.batch", "0", "at least 1"});
  // the age of "never" is 2^30: a longer window would keep what no query ever cared for
  expect_policy_refused(Corm{.window = 2147483647}, {"Corm.window", "2147483647"});
}

}  // namespace
}  // namespace kvast::test

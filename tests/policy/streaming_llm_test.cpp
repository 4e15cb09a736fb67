// SPDX-License-Identifier: Apache-2.0
// StreamingLLM against its definition: the first tokens and the newest ones, nothing else.
#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

class StreamingRules : public Rules {
 public:
  explicit StreamingRules(StreamingLLM settings) : settings_(settings) {}
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    if (!clock_.due(settings_.when, moment)) return;
    for (Line& line : heads) {
      std::erase_if(line, [&](const Entry& entry) {
        return entry.position >= settings_.sinks &&
               entry.position <= moment.newest - settings_.recent;
      });
    }
  }

 private:
  StreamingLLM settings_;
  Clock clock_;
};

template <class Storage>
class StreamingLLMTest : public testing::Test {};
TYPED_TEST_SUITE(StreamingLLMTest, Storages, StorageNames);

TYPED_TEST(StreamingLLMTest, KeepsSinksAndRecentOfTheTrace) {
  Run<StreamingLLM, TypeParam> run(trace(), StreamingLLM{.sinks = 2, .recent = 3});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 1, 5, 6, 7}));
  run.pass({});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 1, 6, 7, 8}));
  run.pass({.tokens = 4});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 1, 10, 11, 12}));
}

TYPED_TEST(StreamingLLMTest, KeepsWhatTheDefinitionKeepsWheneverItActs) {
  for (const When when : {When::step(), When::prompt(), When::full(1), When::full(7)}) {
    for (const int sinks : {0, 1, 4}) {
      const StreamingLLM policy{.sinks = sinks, .recent = 12, .when = when};
      expect_simulated<TypeParam>(conversation_script(2), conversation(), policy,
                                  [&] { return std::make_unique<StreamingRules>(policy); });
    }
  }
}

TYPED_TEST(StreamingLLMTest, CountsTheBatchFromTheFirstToken) {
  const StreamingLLM policy{.sinks = 1, .recent = 4, .when = When::full(7)};
  expect_simulated<TypeParam>(conversation_script(2), std::vector<Turn>(40), policy,
                              [&] { return std::make_unique<StreamingRules>(policy); });
}

TYPED_TEST(StreamingLLMTest, KeepsAllWhileNothingIsOldEnough) {
  Run<StreamingLLM, TypeParam> run(trace(), StreamingLLM{.sinks = 4, .recent = 4});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  EXPECT_EQ(run.kept().size(), 8U);
  run.pass({});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 1, 2, 3, 5, 6, 7, 8}));
}

TEST(StreamingLLMSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(StreamingLLM{.sinks = -1}, {"StreamingLLM.sinks", "-1", "at least 0"});
  expect_policy_refused(StreamingLLM{.recent = 0}, {"StreamingLLM.recent", "0", "at least 1"});
  expect_policy_refused(StreamingLLM{.when = When::full(0)}, {"when.batch", "0", "at least 1"});
}

}  // namespace
}  // namespace kvast::test

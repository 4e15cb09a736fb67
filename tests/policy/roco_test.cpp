// SPDX-License-Identifier: Apache-2.0
// RoCo against its definition.
#include <map>

#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

class RoCoRules : public Rules {
 public:
  explicit RoCoRules(RoCo settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (const Row& row : rows) {
      for (std::size_t at = 0; at < line.size(); ++at)
        if (row.weights[at] >= 0.0) seen_[{&line, line[at].position}].push_back(row.weights[at]);
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    for (Line& line : heads) {
      const auto live = static_cast<int>(line.size());
      const int target = cut_to(settings_.when, settings_.tokens_kept, live, moment.ends_prompt);
      if (target < 0) continue;
      const auto safe = [&](const Entry& entry) {
        return entry.position < settings_.sinks ||
               moment.newest - entry.position < settings_.recent;
      };
      std::vector<std::pair<double, int>> deviations;  // and position
      for (Entry& entry : line) {
        const std::vector<double>& weights = seen_[{&line, entry.position}];
        double mean = 0.0;
        for (const double weight : weights) mean += weight / static_cast<double>(weights.size());
        double variance = 0.0;
        for (const double weight : weights)
          variance += (weight - mean) * (weight - mean) / static_cast<double>(weights.size());
        entry.score = mean;
        deviations.push_back({safe(entry) ? 1e9 : std::sqrt(variance), entry.position});
      }
      std::sort(deviations.begin(), deviations.end());
      const auto steady = static_cast<std::size_t>(
          target - static_cast<int>(settings_.spared * static_cast<float>(target) + 1e-3F));
      for (std::size_t at = steady; at < deviations.size(); ++at) {
        for (Entry& entry : line)
          if (entry.position == deviations[at].second) entry.score += 10.0;
      }
      if (steady < deviations.size() && steady > 0 && deviations[steady].first < 1e8)
        margin = std::min(margin, deviations[steady].first / deviations[steady - 1].first - 1.0);
      keep_best(line, target, safe, margin);
    }
  }

 private:
  RoCo settings_;
  std::map<std::pair<const Line*, int>, std::vector<double>> seen_;
};

template <class Storage>
class RoCoTest : public testing::Test {};
TYPED_TEST_SUITE(RoCoTest, Storages, StorageNames);

TYPED_TEST(RoCoTest, KeepsWhatTheDefinitionKeeps) {
  for (const When when : {When::step(), When::full(4), When::prompt()}) {
    for (const float spared : {0.0F, 0.3F}) {
      const RoCo policy{.tokens_kept = 20, .sinks = 2, .recent = 4, .spared = spared, .when = when};
      expect_simulated<TypeParam>(conversation_script(409), conversation(), policy,
                                  [&] { return std::make_unique<RoCoRules>(policy); });
    }
  }
}

TEST(RoCo, AConstantSeriesHasNoNegativeVariance) {
  RoCo::State state;
  const RoCo policy{};
  for (int step = 0; step < 1000; ++step) policy.observe(state, {.weight = 0.1F});
  const std::vector<Token> tokens(1, Token{.position = 9, .age = 99});
  std::vector<float> ranks(1, -7.0F);
  HeadView<RoCo::State> view{};
  view.tokens = tokens;
  view.states = std::span(&state, 1);
  view.budget = 1;
  policy.rank_head(view, ranks);
  EXPECT_NEAR(ranks[0], 0.1F, 1e-4F);
}

// With Reduce::sum a mean may be as large as the group.
TEST(RoCo, ASparedTokenOutranksASteadyOneOfAnyMean) {
  const RoCo policy{.tokens_kept = 2, .sinks = 0, .recent = 0, .spared = 0.5F};
  std::vector<RoCo::State> states(2);
  for (int step = 0; step < 10; ++step) {
    policy.observe(states[0], {.weight = 7.5F});
    policy.observe(states[1], {.weight = step % 2 == 0 ? 0.0F : 0.2F});
  }
  const std::vector<Token> tokens{{.position = 0, .age = 1}, {.position = 1, .age = 0}};
  std::vector<float> ranks(2);
  HeadView<RoCo::State> view{};
  view.tokens = tokens;
  view.states = states;
  view.budget = 2;
  policy.rank_head(view, ranks);
  EXPECT_GT(ranks[1], ranks[0]);
}

TEST(RoCoSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(RoCo{.sinks = -1}, {"RoCo.sinks", "-1"});
  expect_policy_refused(RoCo{.recent = -2}, {"RoCo.recent", "-2"});
  expect_policy_refused(RoCo{.spared = 1.0F}, {"RoCo.spared", "1"});
  expect_policy_refused(RoCo{.tokens_kept = 13}, {"RoCo.tokens_kept", "13", "4 + 10"});
}

}  // namespace
}  // namespace kvast::test

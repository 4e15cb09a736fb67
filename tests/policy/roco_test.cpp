// SPDX-License-Identifier: Apache-2.0
// RoCo against its definition.
#include <map>
#include <tuple>

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
      while (static_cast<int>(line.size()) > target) drop_one(line, target, safe);
    }
  }

 private:
  /// Of the target - R steadiest, the one with the lowest mean.
  template <class Safe>
  void drop_one(Line& line, int target, Safe safe) {
    std::vector<std::tuple<double, int, double>> judged;  // deviation, position, mean
    for (const Entry& entry : line) {
      const std::vector<double>& weights = seen_[{&line, entry.position}];
      double mean = 0.0;
      for (const double weight : weights) mean += weight / static_cast<double>(weights.size());
      double variance = 0.0;
      for (const double weight : weights)
        variance += (weight - mean) * (weight - mean) / static_cast<double>(weights.size());
      judged.emplace_back(safe(entry) ? 1e9 : std::sqrt(variance), entry.position, mean);
    }
    std::sort(judged.begin(), judged.end());
    const auto steady = static_cast<std::size_t>(
        target - static_cast<int>(settings_.spared * static_cast<float>(target) + 1e-3F));
    near(std::get<0>(judged[steady - 1]), std::get<0>(judged[steady]));
    std::vector<std::pair<double, int>> means;
    for (std::size_t at = 0; at < steady; ++at)
      if (std::get<0>(judged[at]) < 1e8)
        means.emplace_back(std::get<2>(judged[at]), std::get<1>(judged[at]));
    std::sort(means.begin(), means.end());
    if (means.size() > 1) near(means[0].first, means[1].first);
    std::erase_if(line, [&](const Entry& entry) { return entry.position == means[0].second; });
  }
  void near(double less, double more) {
    if (less != more && more < 1e8) margin = std::min(margin, more / less - 1.0);
  }

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
      expect_simulated<TypeParam>(conversation_script(402), conversation(), policy,
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

/// Six tokens with these means and deviations, of which four stay, two of them judged at a time: in
/// which order they go.
std::vector<std::size_t> order_of(int sinks, const std::vector<double>& mean,
                                  const std::vector<double>& deviation) {
  const RoCo policy{.tokens_kept = 4, .sinks = sinks, .recent = 0, .spared = 0.5F};
  std::vector<RoCo::State> states(6);
  for (std::size_t at = 0; at < states.size(); ++at) {
    for (const double sign : {-1.0, 1.0})
      policy.observe(states[at], {.weight = static_cast<float>(mean[at] + sign * deviation[at])});
  }
  const std::vector<float> ranks = ranks_of(policy, states, 4);
  std::vector<std::size_t> order{0, 1, 2, 3, 4, 5};
  std::sort(order.begin(), order.end(), [&](std::size_t left, std::size_t right) {
    return rank_key(ranks[left]) < rank_key(ranks[right]);
  });
  return order;
}

// Weights that never vary and are large: in one large eviction each that goes lets the next one in.
TEST(RoCo, ManyThatGoAtOnceGoOneByOne) {
  const std::vector<std::size_t> order =
      order_of(0, {0.9, 0.1, 0.5, 0.3, 0.2, 0.8}, {0.0, 0.01, 0.02, 0.03, 0.04, 0.05});
  // {0, 1}: 1 goes, 2 is let in; {0, 2}: 2 is the lowest
  EXPECT_EQ(order[0], 1U);
  EXPECT_EQ(order[1], 2U);
}

// A sink of which nothing is known takes no turn from those that go.
TEST(RoCo, APinnedTokenWithoutAMeanIsNotJudged) {
  const std::vector<std::size_t> order =
      order_of(1, {NAN, 0.1, 0.5, 0.3, 0.2, 0.8}, {0.0, 0.01, 0.02, 0.03, 0.04, 0.05});
  // {1, 2}: 1 goes, 3 is let in; {2, 3}: 3 is the lowest
  EXPECT_EQ(order[0], 1U);
  EXPECT_EQ(order[1], 3U);
  EXPECT_EQ(order[5], 0U);
}

// With Reduce::sum a mean may be as large as the group.
TEST(RoCo, ASparedTokenOutranksASteadyOneOfAnyMean) {
  const RoCo policy{.tokens_kept = 2, .sinks = 0, .recent = 0, .spared = 0.5F};
  std::vector<RoCo::State> states(2);
  for (int step = 0; step < 10; ++step) {
    policy.observe(states[0], {.weight = 7.5F});
    policy.observe(states[1], {.weight = step % 2 == 0 ? 0.0F : 0.2F});
  }
  const std::vector<float> ranks = ranks_of(policy, states, 2);
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

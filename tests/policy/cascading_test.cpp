// SPDX-License-Identifier: Apache-2.0
// Cascading against a naive set of rings, token by token.
#include <deque>

#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

/// Rings as queues, as the authors' code has them.
class CascadingRules : public Rules {
 public:
  explicit CascadingRules(Cascading settings) : settings_(settings) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    const double beta = 1.0 - static_cast<double>(settings_.forget);
    for (const Row& row : rows) {
      for (std::size_t at = 0; at < line.size(); ++at) {
        if (row.weights[at] >= 0.0)
          line[at].score = beta * line[at].score + (1.0 - beta) * row.weights[at];
      }
    }
  }
  void evict(std::vector<Line>& heads, const Moment&) override {
    rings_.resize(heads.size());
    next_.resize(heads.size(), 0);
    for (std::size_t head = 0; head < heads.size(); ++head) {
      auto& rings = rings_[head];
      rings.resize(static_cast<std::size_t>(settings_.rings));
      const auto score = [&](int position) {
        for (const Entry& entry : heads[head])
          if (entry.position == position) return entry.score;
        return -1.0;
      };
      for (const Entry& entry : heads[head]) {
        if (entry.position < next_[head] || entry.position < settings_.sinks) continue;
        insert(rings, entry.position, score);
      }
      next_[head] = heads[head].back().position + 1;
      std::erase_if(heads[head], [&](const Entry& entry) {
        if (entry.position < settings_.sinks) return false;
        return std::none_of(rings.begin(), rings.end(), [&](const std::deque<int>& ring) {
          return std::find(ring.begin(), ring.end(), entry.position) != ring.end();
        });
      });
    }
  }

 private:
  template <class Score>
  void insert(std::vector<std::deque<int>>& rings, int token, Score score) {
    std::size_t held = 0;
    for (const auto& ring : rings) held += ring.size();
    const bool eager = held < static_cast<std::size_t>(settings_.rings * settings_.ring);
    const int seen = token - settings_.sinks;
    for (std::size_t level = 0; level < rings.size(); ++level) {
      std::deque<int>& ring = rings[level];
      if (eager || seen % (1 << level) == 0) {
        ring.push_back(token);
        if (ring.size() <= static_cast<std::size_t>(settings_.ring)) return;
        token = ring.front();
        ring.pop_front();
      } else if (ring.empty()) {
        ring.push_back(token);
        return;
      } else {
        const double own = score(token);
        const double other = score(ring.back());
        if (own != other) margin = std::min(margin, std::abs(own - other) / std::max(own, other));
        if (own >= other) ring.back() = token;
        return;
      }
    }
  }

  Cascading settings_;
  std::vector<std::vector<std::deque<int>>> rings_;
  std::vector<int> next_;
};

template <class Storage>
class CascadingTest : public testing::Test {};
TYPED_TEST_SUITE(CascadingTest, Storages, StorageNames);

TYPED_TEST(CascadingTest, KeepsWhatTheRingsHold) {
  for (const int rings : {1, 2, 4}) {
    for (const float forget : {0.05F, 0.9F}) {
      const Cascading policy{.sinks = 3, .rings = rings, .ring = 7, .forget = forget};
      expect_simulated<TypeParam>(conversation_script(511), conversation(), policy,
                                  [&] { return std::make_unique<CascadingRules>(policy); });
    }
  }
}

TYPED_TEST(CascadingTest, TheNearPastIsWholeAndTheFarPastThin) {
  test::Run<Cascading, TypeParam> run(conversation_script(5), {.sinks = 2, .rings = 3, .ring = 8});
  for (int step = 0; step < 150; ++step) run.pass({});
  const std::vector<int> kept = run.kept();
  ASSERT_EQ(kept.size(), 2U + 3U * 8U);
  for (std::size_t age = 0; age < 8; ++age)
    EXPECT_EQ(kept[kept.size() - 1 - age], 149 - static_cast<int>(age));
  EXPECT_LT(kept[2], 149 - 3 * 8) << "reaches back farther than a window of the same size";
}

TEST(Cascading, TheAverageOfSmallStepsDoesNotUnderflow) {
  const Cascading policy{};
  Cascading::State one, two;
  for (int step = 0; step < 1000; ++step) {
    policy.observe(one, {.weight = 0.001F});
    policy.observe(two, {.weight = 0.002F});
  }
  EXPECT_GT(one.average, 0.0F);
  EXPECT_NEAR(two.average / one.average, 2.0F, 1e-3F);
}

TEST(CascadingSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(Cascading{.sinks = -1}, {"Cascading.sinks", "-1"});
  expect_policy_refused(Cascading{.rings = 0}, {"Cascading.rings", "0"});
  expect_policy_refused(Cascading{.rings = 17}, {"Cascading.rings", "17"});
  expect_policy_refused(Cascading{.ring = 0}, {"Cascading.ring", "0"});
  expect_policy_refused(Cascading{.forget = 0.0F}, {"Cascading.forget", "0"});
}

// Of equal averages the token that is carried down wins.
TEST(CascadingTies, TheCarriedTokenWins) {
  std::vector<Token> tokens(4);
  for (int at = 0; at < 4; ++at) tokens[static_cast<std::size_t>(at)] = {.position = at};
  std::vector<Cascading::State> states(4, Cascading::State{.average = 0.25F});
  std::vector<float> ranks(4);
  const Cascading policy{.sinks = 0, .rings = 2, .ring = 1};
  HeadView<Cascading::State> view;
  view.tokens = tokens;
  view.states = states;
  policy.rank_head(view, ranks);
  EXPECT_EQ(ranks, (std::vector<float>{kDrop, kDrop, kPin, kPin}));
}

}  // namespace
}  // namespace kvast::test

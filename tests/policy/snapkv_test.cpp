// SPDX-License-Identifier: Apache-2.0
// SnapKV against the golden trace and against its definition: votes, pooling, windows that reach
// back into chunks.
#include <limits>

#include "tests/policy/simulation.h"
#include "tests/policy/trace.h"

namespace kvast::test {
namespace {

class SnapKVRules : public Rules {
 public:
  explicit SnapKVRules(SnapKV settings) : settings_(settings) {}
  int replayed_window() const override { return settings_.window; }
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (std::size_t at = 0; at < line.size(); ++at) {
      line[at].sum = 0.0;
      for (const Row& row : rows) line[at].sum += std::max(0.0, row.weights[at]);
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    const auto pinned = [&](const Entry& entry) {
      return moment.newest - entry.position < settings_.window;
    };
    for (Line& line : heads) {
      const auto live = static_cast<int>(line.size());
      const int target = cut_to(settings_.when, settings_.tokens_kept, live, moment.ends_prompt);
      if (target < 0) continue;
      std::vector<double> votes;  // the window is at the end of the line
      for (const Entry& entry : line)
        if (!pinned(entry)) votes.push_back(entry.sum);
      for (std::size_t at = 0; at < votes.size(); ++at)
        line[at].score = pooled(votes, static_cast<int>(at));
      keep_best(line, target, pinned, margin);
    }
  }

 private:
  double pooled(const std::vector<double>& votes, int at) const {
    double sum = 0.0;
    double most = 0.0;
    const int half = settings_.pooling.width / 2;
    for (int near = at - half; near <= at + half; ++near) {
      if (near < 0 || near >= static_cast<int>(votes.size())) continue;
      sum += votes[static_cast<std::size_t>(near)];
      most = std::max(most, votes[static_cast<std::size_t>(near)]);
    }
    return settings_.pooling.kind == Pooling::Kind::maximum ? most : sum / settings_.pooling.width;
  }

  SnapKV settings_;
};

constexpr Pooling kNone{.width = 1};
constexpr Pooling average(int width) { return {width, Pooling::Kind::average}; }
constexpr Pooling maximum(int width) { return {width, Pooling::Kind::maximum}; }

template <class Storage>
class SnapKVTest : public testing::Test {};
TYPED_TEST_SUITE(SnapKVTest, Storages, StorageNames);

TYPED_TEST(SnapKVTest, TakesTheGoldenVotesOfTheTrace) {
  std::vector<SnapKV::State> seen;
  Run<Probe<SnapKV>, TypeParam> run(trace(),
                                    {.inner = {.tokens_kept = 5, .window = 2}, .seen = &seen});
  run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
  const std::vector<double> votes{.369878, .082531, .369279, .224342, .369279, .082531};
  for (std::size_t position = 0; position < votes.size(); ++position)
    EXPECT_NEAR(seen.at(position).vote, votes[position], 1.5e-6) << position;
}

TYPED_TEST(SnapKVTest, KeepsTheGoldenSetsOfTheTrace) {
  const auto kept = [](Pooling pooling) {
    Run<SnapKV, TypeParam> run(trace(), SnapKV{.tokens_kept = 5, .window = 2, .pooling = pooling});
    run.pass({.tokens = kTracePrompt, .last_of_prompt = true});
    return run.kept();
  };
  EXPECT_EQ(kept(maximum(3)), (std::vector<int>{0, 1, 5, 6, 7}));  // 2 to 5 tie, the newest stays
  EXPECT_EQ(kept(average(3)), (std::vector<int>{1, 3, 4, 6, 7}));  // 2 and 4 tie
  EXPECT_EQ(kept(kNone), (std::vector<int>{0, 2, 4, 6, 7}));
}

TYPED_TEST(SnapKVTest, KeepsWhatTheDefinitionKeepsAtPromptsEnds) {
  std::vector<Turn> turns{{.tokens = 41, .last_of_prompt = true}};
  turns.insert(turns.end(), 30, Turn{});
  turns.push_back({.tokens = 25, .last_of_prompt = true});
  turns.insert(turns.end(), 10, Turn{});
  turns.push_back({.tokens = 3, .last_of_prompt = true});  // shorter than the window
  for (const Pooling pooling : {kNone, average(5), maximum(3), average(41)}) {
    const SnapKV policy{.tokens_kept = 20, .window = 6, .pooling = pooling};
    expect_simulated<TypeParam>(conversation_script(18), turns, policy,
                                [&] { return std::make_unique<SnapKVRules>(policy); });
  }
}

TYPED_TEST(SnapKVTest, ReducesTheGroupAsAsked) {
  for (const Reduce reduce : {Reduce::mean, Reduce::sum, Reduce::max}) {
    const SnapKV policy{.tokens_kept = 20, .window = 6, .reduce = reduce};
    expect_simulated<TypeParam>(conversation_script(19), {{.tokens = 60, .last_of_prompt = true}},
                                policy, [&] { return std::make_unique<SnapKVRules>(policy); });
  }
}

// Weights of earlier passes are only at hand where the cache holds the keys.
TEST(SnapKVReplay, VotesOverChunksAsOverTheWholePrompt) {
  for (const int window : {2, 6, 20, 33}) {
    const SnapKV policy{.tokens_kept = 36, .window = window};
    expect_simulated<Dense<float>>(conversation_script(20), conversation(), policy,
                                   [&] { return std::make_unique<SnapKVRules>(policy); });
  }
}

TEST(SnapKVReplay, VotesAnewInEachPassWhereItActsInEach) {
  for (const When when : {When::step(), When::full(1), When::full(5)}) {
    const SnapKV policy{.tokens_kept = 20, .window = 6, .pooling = average(3), .when = when};
    expect_simulated<Dense<float>>(conversation_script(21), conversation(), policy,
                                   [&] { return std::make_unique<SnapKVRules>(policy); });
  }
}

/// The pooled ranks of `votes`, as the library smooths them.
std::vector<float> pooled_ranks(std::vector<float> votes, Pooling pooling) {
  Block block;
  block.used = static_cast<int>(votes.size());
  block.live = (1U << votes.size()) - 1U;
  for (int slot = 0; slot < block.used; ++slot) block.position[slot] = 10 * slot;
  Block* blocks[] = {&block};
  Head head;
  head.dense = {blocks, 1, 1};
  RankWork work;
  work.ranks = votes;
  work.ranks.resize(kBlockTokens);
  pool_ranks(head, pooling, work);
  work.ranks.resize(votes.size());
  return work.ranks;
}

TEST(SnapKVPooling, IsTheGoldenOne) {
  const std::vector<float> votes{.369878F, .082531F, .369279F, .224342F, .369279F, .082531F};
  const std::vector<double> by_maximum{.369878, .369878, .369279, .369279, .369279, .369279};
  const std::vector<double> by_average{.150803, .273896, .225384, .320967, .225384, .150603};
  const std::vector<float> most = pooled_ranks(votes, maximum(3));
  const std::vector<float> mean = pooled_ranks(votes, average(3));
  for (std::size_t at = 0; at < votes.size(); ++at) {
    EXPECT_NEAR(most[at], by_maximum[at], 1e-6) << at;
    EXPECT_NEAR(mean[at], by_average[at], 1e-6) << at;
  }
  EXPECT_EQ(mean[2],
            mean[4]);  // the same three votes in another order: a tie, whatever the rounding
}

TEST(SnapKVPooling, CountsTheZeroPaddingOfAverages) {
  const std::vector<float> ones(7, 1.0F);
  EXPECT_EQ(pooled_ranks(ones, average(5)),
            (std::vector<float>{0.6F, 0.8F, 1.0F, 1.0F, 1.0F, 0.8F, 0.6F}));
  EXPECT_EQ(pooled_ranks(ones, maximum(5)), ones);
}

TEST(SnapKVPooling, MaximaOfNegativeRanksIgnoreWhatLiesBeyondTheEnds) {
  EXPECT_EQ(pooled_ranks({-3.0F, -1.0F, -2.0F}, maximum(3)),
            (std::vector<float>{-1.0F, -1.0F, -1.0F}));
}

TEST(SnapKVPooling, LandmarksTakeNoPart) {
  EXPECT_EQ(pooled_ranks({1.0F, kDrop, 2.0F, kPin}, maximum(3)),
            (std::vector<float>{2.0F, kDrop, 2.0F, kPin}));
}

TEST(SnapKVPooling, MaximaPassOverNaN) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(pooled_ranks({nan, 1.0F, 2.0F, nan}, maximum(3)),
            (std::vector<float>{1.0F, 2.0F, 2.0F, 2.0F}));
}

// Or the golden {1, 3, 4}, where the newer of two equals stays, would depend on rounding.
TEST(SnapKVPooling, WindowsThatHoldTheSameVotesTie) {
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> votes;
    for (int at = 0; at < 9; ++at)
      votes.push_back(static_cast<float>(noise(22, trial, 0, at) * noise(22, trial, 1, at)));
    std::vector<float> backwards(votes.rbegin(), votes.rend());
    std::vector<float> pooled = pooled_ranks(votes, average(7));
    const std::vector<float> other = pooled_ranks(backwards, average(7));
    std::reverse(pooled.begin(), pooled.end());
    EXPECT_EQ(pooled, other);
  }
}

TEST(SnapKVSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(SnapKV{.window = 0}, {"SnapKV.window", "0"});
  expect_policy_refused(SnapKV{.tokens_kept = 8, .window = 9},
                        {"SnapKV.tokens_kept", "8", "window, 9"});
  expect_policy_refused(SnapKV{.pooling = average(4)}, {"SnapKV.pooling.width", "4", "odd"});
  expect_policy_refused(SnapKV{.pooling = maximum(0)}, {"SnapKV.pooling.width", "0", "odd"});
  expect_policy_refused(SnapKV{.pooling = maximum(-3)}, {"SnapKV.pooling.width", "-3"});
  expect_policy_refused(SnapKV{.when = When::full(0)}, {"when.batch", "0", "at least 1"});
}

}  // namespace
}  // namespace kvast::test

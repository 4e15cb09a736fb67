// SPDX-License-Identifier: Apache-2.0
// L2Norm against its definition: smallest keys stay, some layers are left alone, evictions come in
// batches.
#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

class L2NormRules : public Rules {
 public:
  L2NormRules(L2Norm settings, std::vector<int> skipped)
      : settings_(settings), skipped_(std::move(skipped)) {}
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    if (std::count(skipped_.begin(), skipped_.end(), moment.layer) > 0) return;
    for (Line& line : heads) {
      for (Entry& entry : line) entry.score = -entry.norm;
      const auto live = static_cast<int>(line.size());
      const int target = cut_to(settings_.when, settings_.tokens_kept, live, moment.ends_prompt);
      if (target < 0) continue;
      const auto pinned = [&](const Entry& entry) {
        return moment.newest - entry.position < settings_.recent;
      };
      keep_best(line, target, pinned, margin);
    }
  }

 private:
  L2Norm settings_;
  std::vector<int> skipped_;
};

Script norms_script(std::uint64_t seed, int layers) {
  Script script = conversation_script(seed, {.layers = layers, .query_heads = 4, .heads = 2});
  script.norms = [seed](int head, int position) { return 1.0 + noise(seed, 7, head, position); };
  return script;
}

LayerSet layers_of(const std::vector<int>& layers) {
  LayerSet set;
  for (const int layer : layers) set.add(layer);
  return set;
}

template <class Storage>
class L2NormTest : public testing::Test {};
TYPED_TEST_SUITE(L2NormTest, Storages, StorageNames);

TYPED_TEST(L2NormTest, KeepsTheSmallestKeys) {
  const std::vector<double> norms{3, 1, 4, 1.5, 9, 2.6, 5.3, 5.8};
  Script script{.shape = {.head_dim = 8}, .logits = [](int, int, int) { return 0.0; }};
  script.norms = [norms](int, int position) {
    return norms.at(static_cast<std::size_t>(position));
  };
  Run<L2Norm, TypeParam> run(script, L2Norm{.tokens_kept = 4, .skip = {}, .when = When::step()});
  run.pass({.tokens = 8, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{0, 1, 3, 5}));
}

TYPED_TEST(L2NormTest, EqualNormsKeepTheNewer) {
  Script script{.shape = {.head_dim = 8}, .logits = [](int, int, int) { return 0.0; }};
  Run<L2Norm, TypeParam> run(script, L2Norm{.tokens_kept = 3, .skip = {}, .when = When::prompt()});
  run.pass({.tokens = 8, .last_of_prompt = true});
  EXPECT_EQ(run.kept(), (std::vector<int>{5, 6, 7}));
}

TYPED_TEST(L2NormTest, KeepsWhatTheDefinitionKeepsWheneverItActs) {
  for (const When when : {When::step(), When::prompt(), When::full(1), When::full(6)}) {
    for (const int recent : {0, 5}) {
      const L2Norm policy{.tokens_kept = 14, .recent = recent, .skip = LayerSet{}, .when = when};
      expect_simulated<TypeParam>(norms_script(15, 1), conversation(), policy, [&] {
        return std::make_unique<L2NormRules>(policy, std::vector<int>{});
      });
    }
  }
}

TYPED_TEST(L2NormTest, LeavesTheSkippedLayersWhole) {
  const L2Norm policy{.tokens_kept = 14, .skip = layers_of({0, 2}), .when = When::full(4)};
  expect_simulated<TypeParam>(norms_script(116, 4), conversation(), policy, [&] {
    return std::make_unique<L2NormRules>(policy, std::vector<int>{0, 2});
  });
}

TYPED_TEST(L2NormTest, EvictsBatchesWhenFull) {
  Run<L2Norm, TypeParam> run(norms_script(17, 1),
                             L2Norm{.tokens_kept = 20, .skip = {}, .when = When::full(5)});
  std::vector<int> counts;
  for (int step = 0; step < 31; ++step) {
    run.pass({});
    counts.push_back(run.cache().tokens(0, 0));
  }
  for (int step = 0; step < 31; ++step) {
    const int grown = step < 20 ? step + 1 : 16 + (step - 20) % 5;
    EXPECT_EQ(counts[static_cast<std::size_t>(step)], grown) << step;
  }
}

TEST(LayerSetTest, HoldsTheLayersThatWereAdded) {
  const LayerSet set = layers_of({0, 63, 64, 255});
  for (const int layer : {0, 63, 64, 255}) EXPECT_TRUE(set.contains(layer)) << layer;
  for (const int layer : {-1, 1, 62, 65, 254, 256, 4000})
    EXPECT_FALSE(set.contains(layer)) << layer;
  EXPECT_TRUE(LayerSet::first(2).contains(1));
  EXPECT_FALSE(LayerSet::first(2).contains(2));
  EXPECT_FALSE(LayerSet::first(0).contains(0));
}

TEST(LayerSetTest, RefusesLayersThatItCannotHold) {
  LayerSet set;
  EXPECT_THROW(set.add(-1), Error);
  EXPECT_THROW(set.add(256), Error);
  EXPECT_THROW(LayerSet::first(257), Error);
  for (int layer = 0; layer < 256; ++layer) EXPECT_FALSE(set.contains(layer));
}

TEST(L2NormSettings, ImpossibleOnesAreRefusedByName) {
  expect_policy_refused(L2Norm{.tokens_kept = 0}, {"L2Norm.tokens_kept", "0", "at least 1"});
  expect_policy_refused(L2Norm{.tokens_kept = 4, .recent = 5},
                        {"L2Norm.tokens_kept", "4", "recent, 5"});
  expect_policy_refused(L2Norm{.recent = -1}, {"L2Norm.recent", "-1"});
  expect_policy_refused(L2Norm{.when = When::full(0)}, {"when.batch", "0", "at least 1"});
  expect_policy_refused(L2Norm{.tokens_kept = 8},
                        {"when.batch", "10", "budget, 8"});  // the default batch
}

TEST(L2NormSettings, SkippedLayersThatTheModelLacksAreRefused) {
  BlockPool pool;
  const Shape shape{.layers = 4, .head_dim = 8};
  test::expect_refused(
      [&] {
        KVCache<L2Norm, Dense<float>>(shape, {.skip = layers_of({0, 4})}, {}, pool);
      },
      {"L2Norm.skip", "layer 4", "4 layers"});
  KVCache<L2Norm, Dense<float>>(shape, {.skip = layers_of({0, 3})}, {}, pool);
}

}  // namespace
}  // namespace kvast::test

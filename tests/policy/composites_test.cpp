// SPDX-License-Identifier: Apache-2.0
// Policies made of two others keep, where each of them decides, what it would keep alone.
#include "tests/policy/simulation.h"

namespace kvast::test {
namespace {

constexpr Shape kShape{.layers = 3, .query_heads = 4, .heads = 2};

template <class Storage>
class CompositeTest : public testing::Test {};
TYPED_TEST_SUITE(CompositeTest, Storages, StorageNames);

TYPED_TEST(CompositeTest, EachLayerKeepsWhatItsOwnPolicyKeeps) {
  const Script script = conversation_script(91, kShape);
  const H2O h2o{.heavy = 9, .recent = 5};
  const TOVA tova{.tokens_kept = 17};
  Run<PerLayer<H2O, TOVA>, TypeParam> both(script, {h2o, tova, LayerSet{}.add(0).add(2)});
  Run<H2O, TypeParam> first(script, h2o);
  Run<TOVA, TypeParam> second(script, tova);
  for (const Turn& turn : conversation()) {
    both.pass(turn);
    first.pass(turn);
    second.pass(turn);
    for (int head = 0; head < 2; ++head) {
      ASSERT_EQ(both.kept(head, 0), first.kept(head, 0));
      ASSERT_EQ(both.kept(head, 1), second.kept(head, 1));
      ASSERT_EQ(both.kept(head, 2), first.kept(head, 2));
    }
  }
}

TYPED_TEST(CompositeTest, EachHeadKeepsWhatItsOwnPolicyKeeps) {
  const Script script = conversation_script(92, kShape);
  const StreamingLLM streaming{.sinks = 2, .recent = 11};
  const H2O h2o{.heavy = 9, .recent = 5, .when = When::full(4), .reduce = Reduce::max};
  Run<PerHead<StreamingLLM, H2O>, TypeParam> both(script,
                                                  {streaming, h2o, HeadSet{}.add(0, 1).add(2, 0)});
  Run<StreamingLLM, TypeParam> first(script, streaming);
  Run<H2O, TypeParam> second(script, h2o);
  for (const Turn& turn : conversation()) {
    both.pass(turn);
    first.pass(turn);
    second.pass(turn);
    for (int layer = 0; layer < 3; ++layer) {
      for (int head = 0; head < 2; ++head) {
        const bool listed = (layer == 0 && head == 1) || (layer == 2 && head == 0);
        ASSERT_EQ(both.kept(head, layer),
                  listed ? first.kept(head, layer) : second.kept(head, layer));
      }
    }
  }
}

// Windows of several lengths, whole-head ranks and new weights, all in one layer.
TEST(PerHead, PartsMayLookAtAttentionInDifferentWays) {
  const Script script = conversation_script(93, kShape);
  const SnapKV snap{.tokens_kept = 20, .window = 6, .when = When::step()};
  const Keyformer keyformer{.tokens_kept = 16, .recent = 4};
  const KeyDiff diff{.tokens_kept = 14, .recent = 2};
  test::Run<PerHead<SnapKV, Keyformer>, Dense<float>> both(
      script, {snap, keyformer, HeadSet{}.add(0, 0).add(1, 0).add(2, 0)});
  test::Run<SnapKV, Dense<float>> first(script, snap);
  test::Run<Keyformer, Dense<float>> second(script, keyformer);
  test::Run<PerHead<KeyDiff, SnapKV>, Dense<float>> mixed(script,
                                                          {diff, snap, HeadSet{}.add(1, 1)});
  test::Run<KeyDiff, Dense<float>> third(script, diff);
  for (const Turn& turn : conversation()) {
    both.pass(turn);
    first.pass(turn);
    second.pass(turn);
    mixed.pass(turn);
    third.pass(turn);
    for (int layer = 0; layer < 3; ++layer) {
      ASSERT_EQ(both.kept(0, layer), first.kept(0, layer));
      ASSERT_EQ(both.kept(1, layer), second.kept(1, layer));
    }
    ASSERT_EQ(mixed.kept(1, 1), third.kept(1, 1));
    ASSERT_EQ(mixed.kept(0, 1), first.kept(0, 1));
  }
}

class SnapThenH2ORules : public Rules {
 public:
  SnapThenH2ORules(SnapKV prompt, H2O after) : prompt_(prompt), after_(after) {}
  void learn(Line& line, const std::vector<Row>& rows) override {
    for (std::size_t at = 0; at < line.size(); ++at) {
      line[at].score = 0.0;
      for (std::size_t row = 0; row < rows.size(); ++row) {
        if (rows[row].weights[at] < 0.0) continue;
        line[at].sum += rows[row].weights[at];
        if (static_cast<int>(rows.size() - row) <= prompt_.window)
          line[at].score += rows[row].weights[at];
      }
    }
  }
  void evict(std::vector<Line>& heads, const Moment& moment) override {
    if (moment.more_of_prompt) return;  // neither has its turn
    const int budget = moment.ends_prompt ? prompt_.tokens_kept : after_.heavy + after_.recent;
    const int recent = moment.ends_prompt ? prompt_.window : after_.recent;
    for (Line& line : heads) {
      if (static_cast<int>(line.size()) <= budget) continue;
      if (!moment.ends_prompt) {
        for (Entry& entry : line) entry.score = entry.sum;
      }
      const auto pinned = [&](const Entry& entry) {
        return moment.newest - entry.position < recent;
      };
      keep_best(line, budget, pinned, margin);
    }
  }

 private:
  SnapKV prompt_;
  H2O after_;
};

TYPED_TEST(CompositeTest, OnePolicyCutsThePromptAndAnotherWhatFollows) {
  const SnapKV snap{.tokens_kept = 25, .window = 7, .pooling = {.width = 1}};
  const H2O h2o{.heavy = 20, .recent = 10};
  expect_simulated<TypeParam>(conversation_script(94, kShape), conversation(),
                              PrefillThenDecode<SnapKV, H2O>{snap, h2o},
                              [&] { return std::make_unique<SnapThenH2ORules>(snap, h2o); });
}

TEST(PrefillThenDecode, APromptInChunksIsCutAsAWholeOne) {
  const auto kept = [](const std::vector<int>& chunks) {
    test::Run<PrefillThenDecode<SnapKV, SnapKV>, Dense<float>> run(
        conversation_script(95, kShape), {{.tokens_kept = 30, .window = 16},
                                          {.tokens_kept = 24, .window = 9, .when = When::step()}});
    for (std::size_t at = 0; at < chunks.size(); ++at) {
      const bool last = at + 1 == chunks.size();
      run.pass({.tokens = chunks[at], .last_of_prompt = last, .more_of_prompt = !last});
    }
    std::vector<std::vector<int>> all{run.kept(0, 0), run.kept(1, 2)};
    return all;
  };
  const auto whole = kept({60});
  EXPECT_EQ(whole[0].size(), 30U);
  for (const auto& chunks : std::vector<std::vector<int>>{{50, 10}, {20, 20, 20}, {59, 1}, {3, 57}})
    EXPECT_EQ(kept(chunks), whole) << chunks.size() << " chunks, the first " << chunks[0];
}

// The wrapper has its own habit: a policy for decode steps acts once, at the prompt's end.
TEST(PrefillThenDecode, ThePromptsPolicyActsAtItsEndWhateverItsHabit) {
  const Script script = conversation_script(96);
  test::Run<PrefillThenDecode<StreamingLLM, Full>, External> run(script,
                                                                 {{.sinks = 2, .recent = 8}, {}});
  run.pass({.tokens = 30, .last_of_prompt = true});
  EXPECT_EQ(run.kept().size(), 10U);
  for (int step = 0; step < 7; ++step) run.pass({});
  EXPECT_EQ(run.kept().size(), 17U);
  run.pass({.tokens = 5, .last_of_prompt = true});
  EXPECT_EQ(run.kept().size(), 10U);
}

TEST(PrefillThenDecode, LetsFastGenChooseAtThePromptsEnd) {
  const Script script = conversation_script(97);
  const FastGen fastgen{.threshold = 0.6F, .frequent = 0.1F, .local = 0.1F};
  test::Run<PrefillThenDecode<FastGen, Full>, Dense<float>> both(script, {fastgen, {}});
  test::Run<FastGen, Dense<float>> alone(script, fastgen);
  both.pass({.tokens = 60, .last_of_prompt = true});
  alone.pass({.tokens = 60, .last_of_prompt = true});
  for (int head = 0; head < 2; ++head) {
    EXPECT_EQ(both.kept(head), alone.kept(head));
    EXPECT_EQ(both.cache().choice<FastGen>(0, head).rule, alone.cache().choice(0, head).rule);
  }
}

TEST(PerLayer, ALayerPaysForItsOwnPolicyOnly) {
  const Script script = conversation_script(98, kShape);
  test::Run<PerLayer<Full, RoCo>, Dense<float>> all(script, {{}, {}, LayerSet::first(3)});
  test::Run<PerLayer<Full, RoCo>, Dense<float>> none(script, {{}, {}, LayerSet{}});
  test::Run<Full, Dense<float>> full(script, {});
  test::Run<RoCo, Dense<float>> roco(script, {});
  for (int pass = 0; pass < 2; ++pass) {
    const Turn turn{.tokens = 70, .last_of_prompt = true};
    all.pass(turn);
    none.pass(turn);
    full.pass(turn);
    roco.pass(turn);
  }
  EXPECT_EQ(all.cache().bytes_in_use(), full.cache().bytes_in_use());
  EXPECT_EQ(none.cache().bytes_in_use(), roco.cache().bytes_in_use());
  EXPECT_LT(all.cache().bytes_in_use(), none.cache().bytes_in_use());
}

// An engine's own kernel need not compute weights for layers that nobody asks.
TEST(PerLayer, LayersWithoutNeedsAreCommittedUnseen) {
  BlockPool pool;
  KVCache<PerLayer<Full, H2O>, Dense<float>> cache(Shape{.layers = 2, .head_dim = 8},
                                                   {{}, {}, LayerSet::first(1)}, {}, pool);
  const std::vector<float> ones(8, 1.0F);
  std::vector<float> output(8);
  auto pass = cache.begin({});
  pass->append(0, std::span(ones), std::span(ones));
  pass->commit(0);
  pass->append(1, std::span(ones), std::span(ones));
  expect_refused([&] { pass->commit(1); }, {"commit", "out of order"});
  pass->attend(1, std::span(ones), std::span(output));
  pass->commit(1);
  EXPECT_EQ(cache.tokens(1, 0), 1);
}

// What FastGen's frequent rule has room for is not the next layer's budget.
TEST(PerLayer, ABudgetBesideFastGenIsItsOwn) {
  const Script script = conversation_script(100, kShape);
  const H2O h2o{.heavy = 20, .recent = 10};
  const FastGen fastgen{.threshold = 0.4F, .frequent = 0.1F, .local = 0.1F};
  test::Run<PerLayer<FastGen, H2O>, Dense<float>> both(script, {fastgen, h2o, LayerSet{}.add(0)});
  test::Run<H2O, Dense<float>> alone(script, h2o);
  for (const Turn& turn : {Turn{.tokens = 100, .last_of_prompt = true}, Turn{}, Turn{}}) {
    both.pass(turn);
    alone.pass(turn);
    for (int head = 0; head < 2; ++head) {
      EXPECT_EQ(both.kept(head, 1), alone.kept(head, 1));
      EXPECT_EQ(both.kept(head, 2), alone.kept(head, 2));
    }
  }
}

// Another head's longer window must not lengthen this one's vote into the turn before.
TEST(PerHead, AVoteAtAPromptsEndIsThatPromptsOwn) {
  const Script script = conversation_script(101, kShape);
  const SnapKV prompt{.tokens_kept = 24, .window = 20};
  const SnapKV always{.tokens_kept = 40, .window = 30, .when = When::step()};
  test::Run<PerHead<SnapKV, SnapKV>, Dense<float>> both(
      script, {prompt, always, HeadSet{}.add(0, 0).add(1, 0).add(2, 0)});
  test::Run<SnapKV, Dense<float>> first(script, prompt);
  test::Run<SnapKV, Dense<float>> second(script, always);
  for (const Turn& turn : conversation()) {
    both.pass(turn);
    first.pass(turn);
    second.pass(turn);
    ASSERT_EQ(both.kept(0, 1), first.kept(0, 1));
    ASSERT_EQ(both.kept(1, 1), second.kept(1, 1));
  }
}

TEST(PerLayer, SaysWhichLayersChoseByFastGen) {
  test::Run<PerLayer<FastGen, Full>, Dense<float>> run(
      conversation_script(99, kShape),
      {{.threshold = 0.6F, .frequent = 0.1F, .local = 0.1F}, {}, LayerSet{}.add(1)});
  run.pass({.tokens = 60, .last_of_prompt = true});
  EXPECT_GT(run.cache().choice<FastGen>(1, 0).mass[4], 0.99F);
  expect_refused([&] { (void)run.cache().choice<FastGen>(0, 0); }, {"choice", "layer 0"});
  EXPECT_EQ(run.kept(0, 0).size(), 60U);
}

TEST(CompositeSettings, ImpossibleOnesOfEitherPartAreRefusedByName) {
  expect_policy_refused(PerLayer<H2O, TOVA>{{.heavy = -1}, {}, {}}, {"H2O.heavy", "-1"});
  expect_policy_refused(PerLayer<H2O, TOVA>{{}, {.tokens_kept = 0}, {}}, {"TOVA.tokens_kept", "0"});
  expect_policy_refused(PerHead<H2O, Corm>{{}, {.window = 0}, {}}, {"Corm.window", "0"});
  expect_policy_refused(PrefillThenDecode<SnapKV, H2O>{{.window = 0}, {}}, {"SnapKV.window", "0"});
  expect_policy_refused(PrefillThenDecode<SnapKV, H2O>{{}, {.recent = -2}}, {"H2O.recent", "-2"});
  expect_policy_refused(PrefillThenDecode<H2O, SnapKV>{}, {"PrefillThenDecode.decode", "never"});
  using Retrieval = PerHead<H2O, SnapKV>;
  expect_policy_refused(PrefillThenDecode<SnapKV, Retrieval>{},
                        {"PrefillThenDecode.decode", "SnapKV", "never"});
  expect_policy_refused(Retrieval{{}, {}, HeadSet{}.add(0, 1)},
                        {"PerHead.heads", "head 1 of layer 0", "1 heads"});
  expect_policy_refused(Retrieval{{}, {}, HeadSet{}.add(5, 0)},
                        {"PerHead.heads", "head 0 of layer 5", "0 heads"});
  expect_policy_refused(PerLayer<H2O, TOVA>{{}, {}, LayerSet::first(4)},
                        {"PerLayer.layers has layer 3", "the cache has 3"});
  expect_policy_refused(PrefillThenDecode<SnapKV, AdaHeads<Corm>>{}, {"AdaHeads", "Corm"});
  expect_policy_refused(PrefillThenDecode<SnapKV, H2O>{{}, {.heavy = 8, .when = When::full(10)}},
                        {"H2O: when.batch is 10"});
  expect_refused([] { (void)HeadSet{}.add(128, 0); }, {"HeadSet", "128 and 0", "[0, 128)"});
  expect_refused([] { (void)HeadSet{}.add(0, -1); }, {"HeadSet", "0 and -1"});
}

}  // namespace
}  // namespace kvast::test

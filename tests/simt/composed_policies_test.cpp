// SPDX-License-Identifier: Apache-2.0
// Policies made of others on the device: each layer, head and phase keeps what it keeps on the CPU.
#include "tests/simt/histories.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::check_history;

const H2O kHeavy{.heavy = 40, .recent = 20};
const SnapKV kVotes{.tokens_kept = 50, .window = 10};
const StreamingLLM kStreams{.sinks = 4, .recent = 40};

HeadSet some_heads() {
  HeadSet heads;
  return heads.add(0, 1).add(1, 0);
}

TEST(GpuComposed, ByLayer) {
  const LayerSet first = LayerSet::first(1);
  check_history(PerLayer<Full, H2O>{{}, kHeavy, first}, 60);
  check_history(PerLayer<H2O, StreamingLLM>{kHeavy, kStreams, first}, 60);
  check_history(PerLayer<TOVA, SnapKV>{{.tokens_kept = 50}, kVotes, first}, 20);
  // records of unlike sizes, of which some layers' have ranks
  check_history(
      PerLayer<Full, Scissorhands>{
          {}, {.tokens_kept = 60, .window = 20, .when = When::full(9)}, first},
      60, Kivi<4>{.residual = 32});
}
/// A schedule over the layers that it decides for, and over no others.
TEST(GpuComposed, SchedulesOfSomeLayers) {
  const std::vector<Shape> shapes(4, {.query_heads = 4, .heads = 2, .head_dim = 8});
  LayerSet odd;
  odd.add(1).add(3);
  check_history(PerLayer<Pyramid<H2O>, StreamingLLM>{{{.heavy = 30, .recent = 10}}, kStreams, odd},
                40, Dense<half>{}, shapes);
}
/// Some layers have no head of a part: the schedule is over the others, however many are committed
/// together.
TEST(GpuComposed, SchedulesOfSomeHeads) {
  const std::vector<Shape> shapes(4, {.query_heads = 4, .heads = 2, .head_dim = 8});
  HeadSet of_first;
  of_first.add(0, 0).add(0, 1).add(2, 1);
  const Pyramid<H2O> slope{{.heavy = 30, .recent = 10}};
  check_history(PerHead<Full, Pyramid<H2O>>{{}, slope, of_first}, 40, Dense<half>{}, shapes);
  HeadSet but_first;
  but_first.add(1, 0).add(2, 0).add(2, 1).add(3, 1);
  check_history(PerHead<Pyramid<H2O>, StreamingLLM>{slope, kStreams, but_first}, 40, Dense<half>{},
                shapes);
}
/// A layer of which nobody watches a head is committed without attention, as on the CPU.
TEST(GpuComposed, LayersThatNobodyWatches) {
  test::begin_schedule(test::kSchedules[0]);
  HeadSet full;
  full.add(0, 0).add(0, 1);
  gpu::Pool<test::TestDevice> pool({.stream = test::stream()});
  KVCache<PerHead<Full, H2O>, OnGpu<Dense<half>, test::TestDevice>> cache(
      test::kShapes, {{}, kHeavy, full}, {}, pool);
  const auto numbers = test::on_device(std::vector<float>(64, 0.5F));
  auto pass = cache.begin();
  ASSERT_TRUE(pass);
  for (const int layer : {0, 1}) ASSERT_TRUE(pass->append(layer, numbers.data(), numbers.data()));
  ASSERT_TRUE(pass->commit(0));
  test::expect_refused([&] { (void)pass->commit(1); }, {"needed is attend or observe"});
}
TEST(GpuComposed, ByHead) {
  check_history(PerHead<Full, StreamingLLM>{{}, kStreams, some_heads()}, 60);
  check_history(PerHead<H2O, Corm>{kHeavy, {.window = 20, .recent = 8}, some_heads()}, 60);
  // one mean and one maximum of a group's weights, one of all queries and one of the newest
  check_history(PerHead<SnapKV, Corm>{kVotes, {.window = 20, .recent = 8}, some_heads()}, 20);
  check_history(
      PerHead<StreamingLLM, L2Norm>{kStreams, {.tokens_kept = 50, .skip = {}}, some_heads()}, 60,
      Kivi<4>{.residual = 32});
}
TEST(GpuComposed, ByPhase) {
  check_history(PrefillThenDecode<SnapKV, H2O>{kVotes, kHeavy}, 60);
  check_history(PrefillThenDecode<AdaHeads<SnapKV>, StreamingLLM>{{kVotes}, kStreams}, 40);
  check_history(PrefillThenDecode<FastGen, H2O>{{.threshold = 0.5F}, kHeavy}, 40);
  check_history(PrefillThenDecode<SnapKV, H2O>{kVotes, kHeavy}, 40, Kivi<4>{.residual = 32});
}
TEST(GpuComposed, OfOthersThatAreComposed) {
  using Heads = PerHead<Full, SnapKV>;
  using Phases = PrefillThenDecode<Heads, H2O>;
  const Phases phases{{{}, kVotes, some_heads()}, kHeavy};
  check_history(phases, 40);
  check_history(PerLayer<Phases, TOVA>{phases, {.tokens_kept = 50}, LayerSet::first(1)}, 40);
  check_history(
      PerLayer<FastGen, Protect<H2O>>{
          {.threshold = 0.6F, .frequent = 0.2F}, {kHeavy, 4, 2}, LayerSet::first(1)},
      40);
}
/// Between the chunks of a prompt neither phase's policy has its turn.
TEST(GpuComposed, PhasesWaitWithinAPrompt) {
  test::begin_schedule(test::kSchedules[0]);
  using Policy = PrefillThenDecode<SnapKV, H2O>;
  test::Twins<Policy, Dense<float>, true> twins(test::kShapes, {kVotes, kHeavy}, {});
  ASSERT_NO_FATAL_FAILURE(twins.pass({90, 30}, false, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  EXPECT_EQ(*twins.device().tokens(0, 0, 0), 90);
  ASSERT_NO_FATAL_FAILURE(twins.pass({60, 40}, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  EXPECT_EQ(*twins.device().tokens(0, 0, 0), 50);
  for (int step = 0; step < 20; ++step) {
    ASSERT_NO_FATAL_FAILURE(twins.load());  // a GPU's exponentials are its own
    ASSERT_NO_FATAL_FAILURE(twins.pass({1, 1}, false));
  }
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  EXPECT_EQ(*twins.device().tokens(0, 0, 0), 60);
}
#if !defined(__CUDACC__)  // exp and log are the machine's, and long histories part
/// Of heads under Full nothing is weighed, and of the others new weights are.
TEST(GpuComposed, WeighsSomeHeads) {
  check_history(
      PerHead<Full, Keyformer>{{}, {.tokens_kept = 50, .recent = 12, .steps = 40}, some_heads()},
      20, Dense<float>{});
}
#endif
/// The choice that the layer's policy made, and no other layer's.
TEST(GpuComposed, ChoicesOfSomeLayers) {
  test::begin_schedule(test::kSchedules[0]);
  using Policy = PerLayer<FastGen, H2O>;
  test::Twins<Policy, Dense<half>> twins(test::kShapes,
                                         {{.threshold = 0.3F}, kHeavy, LayerSet::first(1)}, {});
  ASSERT_NO_FATAL_FAILURE(twins.pass({60, 60}, true));
  const auto rule = twins.device().choice<FastGen>(0, 0, 0)->rule;
  EXPECT_NE(rule, FastGen::Rule::full);
  EXPECT_EQ(rule, twins.host(0).choice<FastGen>(0, 0).rule);
  test::expect_refused([&] { (void)twins.device().choice<FastGen>(0, 1, 0); },
                       {"choice: the policy of layer 1 is another one"});
}
TEST(GpuComposed, ByAttend) {
  test::begin_schedule(test::kSchedules[0]);
  using Policy = PerLayer<PerHead<Full, H2O>, PrefillThenDecode<SnapKV, H2O>>;
  const Policy policy{{{}, kHeavy, some_heads()}, {kVotes, kHeavy}, LayerSet::first(1)};
  test::Twins<Policy, Dense<float>, true> twins(test::kShapes, policy, {});
  ASSERT_NO_FATAL_FAILURE(twins.pass({90, 70}, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  for (int step = 0; step < 12; ++step) {
    ASSERT_NO_FATAL_FAILURE(twins.load());
    ASSERT_NO_FATAL_FAILURE(twins.pass({1, 1}, false));
  }
  ASSERT_NO_FATAL_FAILURE(twins.compare());
  EXPECT_EQ(*twins.device().tokens(0, 0, 0), 60);
  EXPECT_EQ(*twins.device().tokens(0, 0, 1), 102);
}
TEST(GpuComposed, RefusesWhatAPartCannot) {
  gpu::Pool<test::TestDevice> pool({.stream = test::stream()});
  using Policy = PerLayer<Full, SnapKV>;
  test::expect_refused(
      [&] {
        const SnapKV each{.tokens_kept = 50, .window = 10, .when = When::step()};
        KVCache<Policy, OnGpu<Dense<half>, test::TestDevice>> cache(
            test::kShapes, {{}, each, LayerSet::first(1)}, {}, pool);
      },
      {"SnapKV looks back at earlier queries"});
}

}  // namespace
}  // namespace kvast

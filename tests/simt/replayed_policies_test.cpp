// SPDX-License-Identifier: Apache-2.0
// A captured step, replayed over other tokens, does what the step itself would have done: for every
// kind of policy.
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/simt/near_mean.h"
#include "tests/simt/queued_decoder.h"

namespace kvast {
namespace {

using namespace test::queued;

/// What replays attend to, keep and evict is what steps do, over tokens that differ.
template <class Policy, class S>
void check_replays(Policy policy, S storage) {
  Decoder<Policy, S> plain(policy, storage);
  Decoder<Policy, S> captured(policy, storage);
  for (auto* one : {&plain, &captured}) {
    one->draw(0);
    ASSERT_NO_FATAL_FAILURE(one->pass({.tokens = 70, .last_of_prompt = true}, true));
    ASSERT_NO_FATAL_FAILURE(one->pass({}, true));
    ASSERT_TRUE(Device::wait({}));
  }
  ASSERT_TRUE(captured.cache.reserve(60));
  const Device::Work work = captured.capture(1, true);
  for (int step = 1; step <= 60; ++step) {
    const std::vector<float> last = plain.output();
    plain.draw(step);
    captured.draw(step);
    ASSERT_NO_FATAL_FAILURE(plain.pass({}, true));
    Device::replay(work);
    ASSERT_TRUE(Device::wait({}));
    ASSERT_EQ(captured.output(), plain.output()) << "step " << step;
    ASSERT_NE(plain.output(), last);
  }
  ASSERT_TRUE(captured.cache.settle());
  for (int sequence = 0; sequence < kSequences; ++sequence) {
    for (int head = 0; head < kShape.heads; ++head)
      ASSERT_EQ(*captured.cache.kept(sequence, 0, head), *plain.cache.kept(sequence, 0, head));
  }
  ASSERT_EQ(captured.cache.counters().missing, 0);
}
TEST(GpuReplay, GivesWhatStepsDo) {
  check_replays(Full{}, Dense<half>{});
  check_replays(Full{}, Kivi<4>{.residual = 0});
  check_replays(H2O{.heavy = 30, .recent = 20}, Dense<half>{});
  check_replays(H2O{.heavy = 30, .recent = 20}, Kivi<4>{.residual = 0});
}
/// Budgets that follow the length, heads that share them, one set per layer, batches of victims.
TEST(GpuReplay, OfEveryKindOfBudget) {
  check_replays(TOVA{.tokens_kept = 50}, Dense<half>{});
  check_replays(AdaHeads<H2O>{{.heavy = 30, .recent = 10}}, Dense<half>{});
  check_replays(Pyramid<H2O>{{.heavy = 30, .recent = 10}}, Dense<half>{});
  check_replays(Scissorhands{.tokens_kept = 50, .recent = 5, .window = 30, .when = When::full(12)},
                Dense<half>{});
  check_replays(L2Norm{.tokens_kept = 50, .recent = 5, .skip = {}}, Kivi<4>{.residual = 0});
}
TEST(GpuReplay, OfThresholds) {
  check_replays(Corm{.window = 20, .recent = 8}, Dense<half>{});
  check_replays(StreamingLLM{.sinks = 4, .recent = 40, .when = When::full(7)}, Dense<half>{});
}
TEST(GpuReplay, OfHeadsThatAreLookedAtAsAWhole) {
  check_replays(test::NearMean{.tokens_kept = 40}, Dense<half>{});
  check_replays(FastGen{.threshold = 0.6F, .frequent = 0.3F}, Dense<half>{});
}
/// The phase of a captured pass is that of its capture.
TEST(GpuReplay, OfComposedPolicies) {
  HeadSet heads;
  heads.add(0, 1);
  check_replays(PerHead<Full, H2O>{{}, {.heavy = 30, .recent = 10}, heads}, Dense<half>{});
  check_replays(PrefillThenDecode<SnapKV, H2O>{{.tokens_kept = 50, .window = 10},
                                               {.heavy = 30, .recent = 10}},
                Dense<half>{});
}

}  // namespace
}  // namespace kvast

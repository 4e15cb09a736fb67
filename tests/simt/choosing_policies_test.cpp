// SPDX-License-Identifier: Apache-2.0
// Policies that look at each head once on the device: each head gets the CPU's rule, and keeps what
// it keeps on the CPU.
#include <set>

#include "tests/simt/policy_twins.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using Rules = std::set<FastGen::Rule>;

/// Histories of two sequences whose first prompts end at different times. The rules that occur.
template <class S = Dense<half>, bool kFused = false, class Policy = FastGen>
Rules check_choices(Policy policy, S storage = {}, bool in_every_order = false) {
  Rules rules;
  for (const test::Schedule schedule : test::kSchedules) {
    if (!in_every_order && !test::is_first(schedule)) continue;
    test::begin_schedule(schedule);
    test::Twins<Policy, S, kFused> twins(policy, storage);
    const auto pass = [&](const std::vector<int>& counts, bool ends_prompt) {
      ASSERT_NO_FATAL_FAILURE(twins.pass(counts, ends_prompt));
      ASSERT_NO_FATAL_FAILURE(twins.compare());
    };
    pass({150, 0}, true);
    pass({1, 0}, false);
    pass({20, 90}, true);
    const int steps = test::is_first(schedule) ? test::steps_of(16) : 16;
    for (int step = 0; step < steps; ++step) {
      twins.pass({step % 8 == 5 ? 9 : 1, step % 5 == 0 ? 0 : 1}, false);
      if (step % (steps / 2) == 0) pass({1, 1}, false);
    }
    pass({30, 1}, true);
    for (int sequence = 0; sequence < 2; ++sequence) {
      for (int layer = 0; layer < test::kTwinShapes.layers(); ++layer) {
        for (int head = 0; head < test::kTwinShapes[layer].heads; ++head)
          rules.insert(twins.host(sequence).choice(layer, head).rule);
      }
    }
    EXPECT_EQ(twins.device().counters().missing, 0);
  }
  return rules;
}

TEST(GpuFastGen, EveryRuleOccursAndIsTheCpus) {
  Rules all;
  for (const float threshold : {0.3F, 0.405F, 0.5F, 0.75F, 0.9F, 0.97F, 0.999F})
    all.merge(check_choices(FastGen{.threshold = threshold, .frequent = 0.2F, .local = 0.3F}));
  EXPECT_EQ(all.size(), 5U);
}
TEST(GpuFastGen, Settings) {
  check_choices(FastGen{.threshold = 0.75F, .frequent = 0.2F, .by_lifetime = false}, {}, true);
  check_choices(FastGen{.threshold = 0.6F, .frequent = 0.05F, .criterion = FastGen::Criterion::l1});
  check_choices(FastGen{.threshold = 0.8F, .frequent = 0.25F, .local = 0.1F, .rows = 20});
  check_choices(FastGen{.threshold = 0.75F, .frequent = 0.0F, .when = When::full(7)});
  check_choices(FastGen{.threshold = 0.99F, .frequent = 1.0F, .when = When::prompt()});
}
/// Frequent tokens are others in each layer and head: hooks are told which they are.
struct FrequentByHead : FastGen {
  KVAST_HD float frequency(Token token, const State& state) const {
    const float mass = FastGen::frequency(token, state);
    const bool first = token.layer == 0 && token.head == 0;
    return first || mass == kDrop ? mass : static_cast<float>(token.position * 37 % 101);
  }
};
TEST(GpuFastGen, KnowsLayersAndHeads) {
  check_choices<Dense<half>, false, FrequentByHead>({{.threshold = 0.75F, .frequent = 0.2F}});
}
TEST(GpuFastGen, ByAttend) {
  for (const float threshold : {0.5F, 0.7F})
    check_choices<Dense<float>, true>(FastGen{.threshold = threshold, .frequent = 0.2F});
}
TEST(GpuFastGen, OnCodes) {
  check_choices<Kivi<4>>(FastGen{.threshold = 0.75F, .frequent = 0.2F}, {.residual = 32}, true);
}

TEST(GpuFastGen, ClearForgetsChoices) {
  test::begin_schedule(test::kSchedules[0]);
  test::Twins<FastGen, Dense<half>> twins({.threshold = 0.3F}, {});
  twins.pass({60, 60}, true);
  ASSERT_NE(twins.device().choice(0, 0, 0)->rule, FastGen::Rule::full);
  ASSERT_TRUE(twins.device().clear(0));
  twins.host(0).clear();
  EXPECT_EQ(twins.device().choice(0, 0, 0)->rule, FastGen::Rule::full);
  EXPECT_NE(twins.device().choice(1, 0, 0)->rule, FastGen::Rule::full);
  twins.pass({45, 1}, true);
  twins.compare();
  ASSERT_TRUE(twins.device().clear(1));
  twins.host(1).clear();
  twins.pass({1, 30}, false);  // after no prompt: nobody chose, and all stay
  twins.compare();
  test::expect_refused([&] { (void)twins.device().begin({.last_of_prompt = true}); },
                       {"after 30 tokens of no prompt in sequence 1", "FastGen"});
  ASSERT_TRUE(twins.device().clear());
  EXPECT_EQ(twins.device().choice(1, 0, 0)->rule, FastGen::Rule::full);
}

}  // namespace
}  // namespace kvast

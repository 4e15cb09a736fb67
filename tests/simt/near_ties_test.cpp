// SPDX-License-Identifier: Apache-2.0
// Attention on the device decides nearly as the CPU's: halves round queries and weights, so masses
// differ, and of two tokens that rank nearly alike the other one may stay. Step by step from the
// same state.
#include "tests/simt/policy_twins.h"

namespace kvast {
namespace {

/// Ranks that lie so close, as a part of the larger, may change places: README, *On a GPU*. On the
/// CPU codes are multiplied by integers.
constexpr float kHalves = 4e-3F, kCodes = 2e-2F;

/// Ranks by the last query's weight alone: nothing averages its rounding out.
struct Latest {
  int tokens_kept = 40;
  int recent = 4;
  static constexpr Needs needs{.attention = true};
  struct State {
    float weight = 0.0F;
  };
  KVAST_HD void observe(State& state, Attention seen) const { state.weight = seen.weight; }
  KVAST_HD float rank(Token token, State state) const {
    return token.age < recent ? kPin : state.weight;
  }
  KVAST_HD Budget budget(Layer) const { return tokens(tokens_kept); }
};

template <class Policy, class S>
void check_near(Policy policy, S storage, float margin, int steps) {
  test::begin_schedule(test::kSchedules[0]);
  test::Twins<Policy, S, true> twins(policy, storage);
  ASSERT_NO_FATAL_FAILURE(twins.pass({100, 60}, true));
  int swapped = twins.compare_near(margin);
  for (int step = 0; step < test::steps_of(steps, 500); ++step) {
    ASSERT_NO_FATAL_FAILURE(twins.load());
    ASSERT_NO_FATAL_FAILURE(twins.pass({1, 1}, false));
    swapped += twins.compare_near(margin);
  }
  std::printf("%d tokens changed places\n", swapped);
}
TEST(GpuNearTies, Halves) {
  check_near(H2O{.heavy = 30, .recent = 10}, Dense<half>{}, kHalves, 20);
  check_near(Latest{}, Dense<half>{}, kHalves, 60);
  check_near(Keyformer{.tokens_kept = 40, .recent = 10, .steps = 40}, Dense<half>{}, kHalves, 20);
}
TEST(GpuNearTies, Codes) {
  check_near(H2O{.heavy = 40, .recent = 10}, Kivi<4>{.residual = 0}, kCodes, 20);
  check_near(Latest{}, Int8{}, kCodes, 100);
  check_near(Latest{}, Kivi<4>{.residual = 0}, kCodes, 100);
}

}  // namespace
}  // namespace kvast

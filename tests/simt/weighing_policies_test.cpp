// SPDX-License-Identifier: Apache-2.0
// Policies that give weights new values on the device: what stays is what stays on the CPU. Rows
// are summed in another order, in double: ranks may differ in their last bit, and these do not tie.
#include "tests/simt/policy_twins.h"

namespace kvast {
namespace {

// exp and log are the machine's: a GPU's differ in their last bits, and long histories part
#if defined(__CUDACC__)
constexpr bool kSameMath = false;
#else
constexpr bool kSameMath = true;
#endif

template <bool kFused>
void check_weighing(Keyformer policy, int steps) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    test::Twins<Keyformer, Dense<float>, kFused> twins(policy, {});
    const auto compare = [&] {
      if constexpr (kSameMath) {
        twins.compare();
      } else {
        twins.compare_near(1e-4F);
      }
    };
    ASSERT_NO_FATAL_FAILURE(twins.pass({150, 37}, true));
    ASSERT_NO_FATAL_FAILURE(compare());
    const int here = test::is_first(schedule) ? test::steps_of(steps) : steps;
    for (int step = 0; step < here; ++step) {
      if (!kSameMath) {
        ASSERT_NO_FATAL_FAILURE(twins.load());
      }
      ASSERT_NO_FATAL_FAILURE(twins.pass({step % 16 == 7 ? 9 : 1, step % 5 == 0 ? 0 : 1}, false));
      if (!kSameMath || step % 8 == 0 || step + 1 == here) {
        ASSERT_NO_FATAL_FAILURE(compare()) << "step " << step;
      }
    }
    ASSERT_EQ(twins.device().counters().missing, 0);
  }
}

TEST(GpuKeyformer, IsTheCpus) {
  check_weighing<false>({.tokens_kept = 50, .recent = 12, .steps = 40}, 60);
}
/// What rows are summed up in stays within its bound when lists grow, whatever came before.
TEST(GpuKeyformer, ShortPromptsMakeLongOnesNoLarger) {
  test::begin_schedule(test::kSchedules[0]);
  const auto held_by = [](std::initializer_list<int> prompts) {
    gpu::Pool<test::TestDevice> pool({.stream = test::stream()});
    KVCache<Keyformer, OnGpu<Dense<half>, test::TestDevice>> cache(
        Shape{.query_heads = 8, .heads = 8, .head_dim = 8}, {}, {}, pool);
    for (const int tokens : prompts) EXPECT_TRUE(cache.begin({.tokens = tokens}));
    test::wait();
    return pool.bytes_held();
  };
  constexpr std::size_t kOutgrown = std::size_t{17} << 20U;
  EXPECT_LE(held_by({2048, 32768}), held_by({32768}) + 2 * kOutgrown);
}
TEST(GpuKeyformer, ByAttend) {
  check_weighing<true>({.tokens_kept = 50, .recent = 12, .steps = 40}, 10);
}

}  // namespace
}  // namespace kvast

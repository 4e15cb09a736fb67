// SPDX-License-Identifier: Apache-2.0
// Policies on the device: fed the same keys and weights, what stays is what stays on the CPU, token
// for token and code for code, over long histories of ragged batches.
#include <gtest/gtest.h>

#include "tests/simt/histories.h"

namespace kvast {
namespace {

using test::check_history;
using test::kShapes;

TEST(GpuPolicies, H2O) { check_history(H2O{.heavy = 40, .recent = 20}, 200); }
TEST(GpuPolicies, SnapKV) { check_history(SnapKV{.tokens_kept = 50, .window = 10}, 100); }
TEST(GpuPolicies, SharedBudgets) {
  check_history(AdaHeads<SnapKV>{{.tokens_kept = 50, .window = 10}}, 60);
  check_history(AdaHeads<H2O>{{.heavy = 30, .recent = 10}}, 60);
  AdaHeads<H2O> floors{{.heavy = 30, .recent = 10}};
  floors.kind = Allocation::Kind::floor;
  check_history(floors, 60);
}
/// A threshold policy of a user's own, which needs no budget to be what it is.
struct Mattered {
  static constexpr Needs needs{.attention = true};
  struct State {
    float best = 0.0F;
  };
  KVAST_HD void observe(State& state, Attention seen) const {
    if (seen.weight > state.best) state.best = seen.weight;
  }
  KVAST_HD float rank(Token token, State state) const {
    return token.age < 8 || state.best >= 0.2F ? kPin : kDrop;
  }
};
TEST(GpuPolicies, ThresholdsWithoutABudget) { check_history(Mattered{}, 60); }
TEST(GpuPolicies, LayerSchedules) {
  check_history(Pyramid<SnapKV>{{.tokens_kept = 50, .window = 10}}, 20);
  check_history(Pyramid<H2O>{{.heavy = 40, .recent = 10}}, 60);  // budgets change with the length
  Pyramid<H2O> kvpress{{.heavy = 40, .recent = 10}};
  kvpress.kvpress = 0.4;
  check_history(kvpress, 60);
  check_history(PerLayerBudget<H2O>{{.heavy = 20, .recent = 10}, LayerBudgets::slope(2, 60, 1.2)},
                60);
}
TEST(GpuPolicies, L2Norm) {
  check_history(L2Norm{.tokens_kept = 50, .recent = 5, .skip = {}}, 100);
}

/// At a fixed budget a cache needs no more, however long it decodes: what the pool handed out stays
/// as it is, and is what bytes_in_use counts.
template <class Policy, class S>
void check_bytes(Policy policy, S storage) {
  test::begin_schedule(test::kSchedules[0]);
  gpu::Pool<test::TestDevice> pool({.slab_bytes = 4096, .stream = test::stream()});
  KVCache<Policy, OnGpu<S, test::TestDevice>> cache(
      Shape{.query_heads = 1, .heads = 1, .head_dim = 64}, policy, {storage}, pool);
  const auto numbers = test::on_device(test::Random(5).normals(64));
  test::DeviceVector<float> output(64);
  const int steps = test::steps_of(300, 100000);
  std::size_t most = 0;
  std::size_t held = 0;
  for (int step = 0; step < steps; ++step) {
    auto pass = cache.begin();
    ASSERT_TRUE(pass) << pass.status().message();
    ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
    if (Policy::needs.attention) {
      ASSERT_TRUE(pass->attend(0, numbers.data(), output.data()));
    }
    ASSERT_TRUE(pass->commit());
    test::wait();
    if (step < steps / 2) {
      most = std::max(most, *cache.bytes_in_use());
      held = pool.bytes_held();
    } else if (step % 10 == 0) {
      ASSERT_LE(*cache.bytes_in_use(), most) << step;
      ASSERT_LE(*cache.bytes_in_use(), pool.bytes_held());
      ASSERT_EQ(pool.bytes_held(), held) << step;
    }
  }
  EXPECT_EQ(*cache.tokens(0, 0, 0), 44);
  EXPECT_EQ(cache.counters().missing, 0);
}
TEST(GpuPolicies, BytesStayAsTheyAre) {
  check_bytes(H2O{.heavy = 20, .recent = 24}, Dense<half>{});
  check_bytes(StreamingLLM{.sinks = 4, .recent = 40}, Kivi<4>{.residual = 0});
}

TEST(GpuPolicies, Tova) { check_history(TOVA{.tokens_kept = 50, .recent = 4}, 200); }
TEST(GpuPolicies, Corm) {
  check_history(Corm{.window = 20, .recent = 8}, 150);
  check_history(Corm{.window = 20, .recent = 8, .cap = 15}, 150);
}
TEST(GpuPolicies, Scissorhands) {
  check_history(Scissorhands{.tokens_kept = 60, .recent = 5, .window = 30, .when = When::full(20)},
                150);
}
/// What stays is the same codes, however often blocks were merged.
TEST(GpuPolicies, OnCodes) {
  check_history(H2O{.heavy = 40, .recent = 20}, 80, Kivi<4>{.residual = 32});
  check_history(TOVA{.tokens_kept = 50, .recent = 4}, 40, Kivi<2>{.residual = 0});
  check_history(Scissorhands{.tokens_kept = 60, .recent = 5, .window = 30, .when = When::full(20)},
                40, Int8{});
}
TEST(GpuPolicies, WithoutAttention) {
  check_history(Random{.tokens_kept = 50, .recent = 5}, 100);
  check_history(StreamingLLM{.sinks = 4, .recent = 40}, 100);
  check_history(StreamingLLM{.sinks = 4, .recent = 40, .when = When::full(7)}, 60);
}
/// A prompt that ends is one sequence's affair.
TEST(GpuPolicies, PromptsEndOneByOne) {
  test::begin_schedule(test::kSchedules[0]);
  test::Twins<StreamingLLM, Dense<half>> twins(
      kShapes, {.sinks = 4, .recent = 16, .when = When::prompt()}, {});
  ASSERT_NO_FATAL_FAILURE(twins.pass({40, 0}, true));
  for (int step = 0; step < 20; ++step) ASSERT_NO_FATAL_FAILURE(twins.pass({1, 0}, false));
  ASSERT_NO_FATAL_FAILURE(twins.pass({0, 40}, true));
  ASSERT_NO_FATAL_FAILURE(twins.compare());
}

}  // namespace
}  // namespace kvast

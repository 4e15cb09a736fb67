// SPDX-License-Identifier: Apache-2.0
// Attention captured once in a CUDA graph and replayed while lengths grow, splits with them, and
// blocks are sealed, gives the bits that the uncaptured steps give.
#include <gtest/gtest.h>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "tests/gpu/replay.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr int kSteps = 1000;
constexpr int kLayers = 32;
constexpr Shape kShape{.layers = kLayers, .query_heads = 8, .heads = 2, .head_dim = 64};
constexpr std::size_t kRow = 2 * 8 * 64;  // of queries, of both sequences

template <class Policy, class S>
class Batch {
 public:
  Batch(Policy policy, const test::DeviceVector<float>& numbers)
      : output(kRow * kLayers),
        numbers_(numbers),
        cache(kShape, policy, {}, pool_, {.sequences = 2}) {}

  void step() {
    auto pass = cache.begin();
    ASSERT_TRUE(pass) << pass.status().message();
    for (int layer = 0; layer < kLayers; ++layer) {
      const float* rows = numbers_.data() + layer;
      ASSERT_TRUE(pass->append(layer, rows, rows + layer));
      ASSERT_TRUE(
          pass->attend(layer, rows, output.data() + static_cast<std::size_t>(layer) * kRow));
    }
    ASSERT_TRUE(pass->commit());
  }

  test::DeviceVector<float> output;

 private:
  const test::DeviceVector<float>& numbers_;
  gpu::Pool<gpu::CudaDevice> pool_{{.stream = test::stream()}};

 public:
  KVCache<Policy, OnGpu<S>> cache;
};

template <class Policy, class S>
void check_replays(Policy policy) {
  test::Random random(1);
  const auto numbers = test::on_device(random.normals(kRow + 2 * kLayers));
  Batch<Policy, S> plain(policy, numbers);
  Batch<Policy, S> captured(policy, numbers);
  for (int step = 0; step < kSteps; ++step) plain.step();
  captured.step();
  ASSERT_TRUE(captured.cache.reserve(kSteps));
  ASSERT_NO_FATAL_FAILURE(test::replay(kSteps - 1, [&] { captured.step(); }));
  ASSERT_TRUE(captured.cache.settle());
  test::wait();
  EXPECT_EQ(captured.cache.length(1), kSteps);
  EXPECT_EQ(captured.output, plain.output);
  EXPECT_EQ(*captured.cache.kept(1, kLayers - 1, 1), *plain.cache.kept(1, kLayers - 1, 1));
  EXPECT_EQ(captured.cache.counters().missing, 0);
}

TEST(Graph, ReplayedAttentionEqualsSteps) { check_replays<Full, Dense<half>>({}); }
TEST(Graph, ReplayedAttentionOnCodesEqualsSteps) { check_replays<Full, Kivi<4>>({}); }
TEST(Graph, ReplayedEvictionEqualsSteps) {
  check_replays<H2O, Kivi<4>>({.heavy = 200, .recent = 100});
}

}  // namespace
}  // namespace kvast

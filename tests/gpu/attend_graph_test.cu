// SPDX-License-Identifier: Apache-2.0
// Attention captured once in a CUDA graph and replayed while lengths grow, splits with them, and
// blocks are sealed, gives the bits that the uncaptured steps give.
#include <gtest/gtest.h>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "tests/gpu/replay.h"
#include "tests/simt/backend.h"

namespace kvast {
namespace {

constexpr int kSteps = 1000;
constexpr int kLayers = 32;
constexpr Shape kShape{.layers = kLayers, .query_heads = 8, .heads = 2, .head_dim = 64};
constexpr std::size_t kRow = 2 * 8 * 64;           // of queries, of both sequences
constexpr std::size_t kRows = kRow + 2 * kLayers;  // each layer reads others of them

template <class Policy, class S>
class Batch {
 public:
  explicit Batch(Policy policy)
      : outputs(kSteps * 2 * kRow),
        output_(kRow * kLayers),
        cache(kShape, policy, {}, pool_, {.sequences = 2}) {}

  void bring(int step) { rows_.bring(step); }
  /// Of the first layer and the last.
  void keep_output(int step) {
    float* to = outputs.data() + static_cast<std::size_t>(step) * 2 * kRow;
    for (const float* from : {output_.data(), output_.data() + (kLayers - 1) * kRow}) {
      ASSERT_TRUE(test::TestDevice::copy(to, from, kRow * sizeof(float), test::stream()));
      to += kRow;
    }
  }

  void step() {
    auto pass = cache.begin();
    ASSERT_TRUE(pass) << pass.status().message();
    for (int layer = 0; layer < kLayers; ++layer) {
      const float* rows = rows_.data() + layer;
      ASSERT_TRUE(pass->append(layer, rows, rows + layer));
      ASSERT_TRUE(
          pass->attend(layer, rows, output_.data() + static_cast<std::size_t>(layer) * kRow));
    }
    ASSERT_TRUE(pass->commit());
  }

  test::DeviceVector<float> outputs;  ///< [steps, 2 layers, sequences, heads, width]

 private:
  test::Rows rows_{kSteps, kRows};
  test::DeviceVector<float> output_;
  gpu::Pool<gpu::CudaDevice> pool_{{.stream = test::stream()}};

 public:
  KVCache<Policy, OnGpu<S>> cache;
};

template <class Policy, class S>
void check_replays(Policy policy) {
  Batch<Policy, S> plain(policy);
  Batch<Policy, S> captured(policy);
  const auto run = [](Batch<Policy, S>& batch, int step) {
    batch.bring(step);
    batch.step();
    batch.keep_output(step);
  };
  for (int step = 0; step < kSteps; ++step) ASSERT_NO_FATAL_FAILURE(run(plain, step));
  ASSERT_NO_FATAL_FAILURE(run(captured, 0));
  ASSERT_TRUE(captured.cache.reserve(kSteps));
  ASSERT_NO_FATAL_FAILURE(test::replay(
      kSteps - 1, [&] { captured.step(); }, [&](int time) { captured.bring(time + 1); },
      [&](int time) { captured.keep_output(time + 1); }));
  ASSERT_TRUE(captured.cache.settle());
  test::wait();
  EXPECT_EQ(captured.cache.length(1), kSteps);
  ASSERT_EQ(captured.outputs, plain.outputs);
  ASSERT_NE(captured.outputs.front(), captured.outputs[(kSteps - 1) * 2 * kRow]);
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

// SPDX-License-Identifier: Apache-2.0
// Attention captured once in a CUDA graph and replayed while lengths grow, splits with them, and
// blocks are sealed, gives the bits that the uncaptured steps give.
#include <gtest/gtest.h>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "tests/gpu/replay.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr int kSteps = 1000;
constexpr int kLayers = 32;
constexpr Shape kShape{.layers = kLayers, .query_heads = 8, .heads = 2, .head_dim = 64};
constexpr std::size_t kRow = 2 * 8 * 64;  // of queries, of both sequences

template <class S>
class Batch {
 public:
  explicit Batch(const test::DeviceVector<float>& numbers)
      : output(kRow * kLayers), numbers_(numbers) {}

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
  KVCache<Full, OnGpu<S>> cache{kShape, {}, {}, pool_, {.sequences = 2}};
};

template <class S>
void check_replays() {
  test::Random random(1);
  const auto numbers = test::on_device(random.normals(kRow + 2 * kLayers));
  Batch<S> plain(numbers);
  Batch<S> captured(numbers);
  for (int step = 0; step < kSteps; ++step) plain.step();
  captured.step();
  ASSERT_TRUE(captured.cache.reserve(kSteps));
  ASSERT_NO_FATAL_FAILURE(test::replay(kSteps - 1, [&] { captured.step(); }));
  ASSERT_TRUE(captured.cache.settle());
  test::wait();
  EXPECT_EQ(captured.cache.length(1), kSteps);
  EXPECT_EQ(captured.output, plain.output);
}

TEST(Graph, ReplayedAttentionEqualsSteps) { check_replays<Dense<half>>(); }
TEST(Graph, ReplayedAttentionOnCodesEqualsSteps) { check_replays<Kivi<4>>(); }

}  // namespace
}  // namespace kvast

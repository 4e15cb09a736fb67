// SPDX-License-Identifier: Apache-2.0
// Bytes that a cache on the device says are in use are those of the blocks that its heads name, and
// of tables that stay.
#include <algorithm>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/kvast.h"
#include "tests/simt/histories.h"

namespace kvast {
namespace {

/// Counts what a layer's heads name.
struct SumBlocks {
  static constexpr int kThreads = gpu::kWarp;
  gpu::LayerView layer{};
  std::int64_t* to = nullptr;

  KVAST_HD static std::int64_t rounded(const gpu::BlockClass& blocks) {
    return (blocks.bytes + 63) / 64 * 64;  // as the pool has them
  }
  /// One block.
  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    if (block.thread() != 0) return;
    for (int table = 0; table < layer.tables(); ++table) {
      const Head& head = layer.head(table);
      *to += head.blocks() * rounded(layer.side);
      *to += head.coded.count * (rounded(layer.coded_keys) + rounded(layer.coded_values));
      *to += head.dense.count * (rounded(layer.dense_keys) + rounded(layer.dense_values));
    }
  }
};
template <class Cache>
std::size_t bytes_of_blocks(const Cache& cache) {
  test::DeviceVector<std::int64_t> sum(1);
  sum[0] = 0;
  for (int layer = 0; layer < cache.layers(); ++layer) {
    EXPECT_TRUE(
        test::TestDevice::launch(SumBlocks{cache.view(layer), sum.data()}, {1, 0}, test::stream()));
  }
  test::wait();
  return static_cast<std::size_t>(sum[0]);
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
  std::size_t besides = 0;  // tables and scratch
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
      besides = *cache.bytes_in_use() - bytes_of_blocks(cache);
    } else if (step % 10 == 0) {
      ASSERT_EQ(*cache.bytes_in_use(), besides + bytes_of_blocks(cache)) << step;
      ASSERT_LE(*cache.bytes_in_use(), most) << step;
      ASSERT_LE(*cache.bytes_in_use(), pool.bytes_held());
      ASSERT_EQ(pool.bytes_held(), held) << step;
    }
  }
  EXPECT_EQ(*cache.tokens(0, 0, 0), 44);
  EXPECT_EQ(cache.counters().missing, 0);
  ASSERT_TRUE(cache.clear());
  EXPECT_EQ(*cache.bytes_in_use(), besides);
}
TEST(GpuBytes, StayAsTheyAre) {
  check_bytes(H2O{.heavy = 20, .recent = 24}, Dense<half>{});
  check_bytes(StreamingLLM{.sinks = 4, .recent = 40}, Kivi<4>{.residual = 0});
  check_bytes(H2O{.heavy = 20, .recent = 24}, Kivi<4>{.residual = 0});
}

}  // namespace
}  // namespace kvast

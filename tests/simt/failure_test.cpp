// SPDX-License-Identifier: Apache-2.0
// A device that fails: launches that are refused, memory that is exhausted, a device that is not
// there. Each is a Status, the cache stays usable or can be cleared, and nothing leaks.
#include <gtest/gtest.h>

#include <vector>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/device.h"

namespace kvast {
namespace {

using test::SimtDevice;

/// Every call that can fail fails once, and what follows is what is documented.
TEST(GpuCacheFailure, EveryCallFailsOnce) {
  using Cache = KVCache<StreamingLLM, OnGpu<Kivi<4>, SimtDevice>>;
  const std::vector<float> numbers(64 * 2 * 8, 0.5F);
  int failures = 0;
  for (int at = 0;; ++at) {
    SimtDevice::reset();
    SimtDevice::fails_at = at;
    bool failed = false;
    {
      gpu::Pool<SimtDevice> pool;
      Cache cache(Shape{.layers = 2, .query_heads = 2, .heads = 2, .head_dim = 8},
                  {.sinks = 1, .recent = 50}, {{.residual = 0}}, pool);
      for (int turn = 0; turn < 3 && !failed; ++turn) {
        const int length = cache.length(0);
        auto pass = cache.begin({.tokens = 40});
        failed = !pass;
        if (failed) {
          EXPECT_FALSE(pass.status().message().empty());
          EXPECT_EQ(cache.length(0), length);
          continue;
        }
        for (int layer = 0; layer < 2 && !failed; ++layer) {
          failed = !pass->append(layer, numbers.data(), numbers.data());
          if (!failed) failed = !pass->commit(layer);
        }
      }
      // the device works again: after clear everything does
      if (failed) {
        ++failures;
        ASSERT_EQ(SimtDevice::fails_at, -1);
        ASSERT_TRUE(cache.clear());
        auto pass = cache.begin({.tokens = 40});
        ASSERT_TRUE(pass) << pass.status().message();
        for (int layer = 0; layer < 2; ++layer) {
          ASSERT_TRUE(pass->append(layer, numbers.data(), numbers.data()));
          ASSERT_TRUE(pass->commit(layer));
        }
        EXPECT_EQ(*cache.tokens(0, 1, 1), 40);
      }
    }
    ASSERT_EQ(SimtDevice::live, 0) << "leaked after call " << at << " failed";
    if (!failed) break;
  }
  EXPECT_GT(failures, 20);
}

/// A device that is not there: nothing works from the beginning.
TEST(GpuCacheFailure, AMissingDeviceIsAStatus) {
  SimtDevice::reset();
  SimtDevice::missing = true;
  {
    gpu::Pool<SimtDevice> pool;
    KVCache<Full, OnGpu<Dense<half>, SimtDevice>> cache(
        Shape{.query_heads = 1, .heads = 1, .head_dim = 8}, {}, {}, pool);
    for (int turn = 0; turn < 2; ++turn) {
      const auto pass = cache.begin();
      ASSERT_FALSE(pass);
      EXPECT_EQ(pass.status().code(), StatusCode::device_failed);
    }
    EXPECT_TRUE(cache.clear());
    EXPECT_EQ(*cache.tokens(0, 0, 0), 0);
    EXPECT_TRUE(cache.kept(0, 0, 0)->empty());
  }
  SimtDevice::reset();
  EXPECT_EQ(SimtDevice::live, 0);
}

/// Another allocator underneath, which has little.
TEST(GpuCacheFailure, TheCallersAllocatorMayBeEmpty) {
  SimtDevice::reset();
  struct Little {
    std::size_t left = 300000;
    int live = 0;
  } little;
  gpu::PoolOptions<SimtDevice::Stream> options;
  options.allocator.context = &little;
  options.allocator.allocate = [](void* context, std::size_t bytes, SimtDevice::Stream) -> void* {
    auto& mine = *static_cast<Little*>(context);
    if (bytes > mine.left) return nullptr;
    mine.left -= bytes;
    ++mine.live;
    void* memory = nullptr;
    return posix_memalign(&memory, 256, bytes) == 0 ? memory : nullptr;
  };
  options.allocator.release = [](void* context, void* memory, std::size_t bytes,
                                 SimtDevice::Stream) {
    static_cast<Little*>(context)->left += bytes;
    --static_cast<Little*>(context)->live;
    std::free(memory);
  };
  {
    gpu::Pool<SimtDevice> pool(options);
    KVCache<Full, OnGpu<Dense<float>, SimtDevice>> cache(
        Shape{.query_heads = 1, .heads = 1, .head_dim = 64}, {}, {}, pool);
    const std::vector<float> numbers(1000 * 64, 1.0F);
    auto small = cache.begin({.tokens = 100});
    ASSERT_TRUE(small);
    ASSERT_TRUE(small->append(0, numbers.data(), numbers.data()));
    ASSERT_TRUE(small->commit());
    const auto large = cache.begin({.tokens = 1000});
    ASSERT_FALSE(large);
    EXPECT_EQ(large.status().code(), StatusCode::pool_exhausted);
    EXPECT_EQ(*cache.tokens(0, 0, 0), 100);
  }
  EXPECT_EQ(little.live, 0);
  EXPECT_EQ(SimtDevice::live, 0);
}

}  // namespace
}  // namespace kvast

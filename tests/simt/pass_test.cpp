// SPDX-License-Identifier: Apache-2.0
// Passes that end otherwise than they began, and what the host may forget meanwhile: no block is
// lost, and none is missing.
#include <gtest/gtest.h>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

using test::TestDevice;

/// A cache of one head of 64 features, and tokens for it.
template <class S>
class OneHead {
 public:
  using Cache = KVCache<Full, OnGpu<S, TestDevice>>;

  explicit OneHead(const gpu::PoolOptions<typename TestDevice::Stream>& options = {})
      : pool_(options), cache_(Shape{.head_dim = 64}, Full{}, {}, pool_, {.sequences = 1}) {}

  Cache& cache() { return cache_; }
  Status append(typename Cache::Pass& pass) {
    return pass.append(0, numbers_.data(), numbers_.data());
  }
  void pass(const gpu::PassOptions& options) {
    auto pass = cache_.begin(options);
    ASSERT_TRUE(pass) << pass.status().message();
    ASSERT_TRUE(append(*pass));
    ASSERT_TRUE(pass->commit());
  }

 private:
  gpu::Pool<TestDevice> pool_;
  Cache cache_;
  test::DeviceVector<float> numbers_ = test::on_device(test::Random(1).normals(1024 * 64));
};

TEST(GpuCache, ADroppedPassGivesBackEveryBlock) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    OneHead<Dense<half>> head;
    head.pass({.tokens = 1});
    ASSERT_TRUE(head.cache().begin({.tokens = 300}));  // lists are as long as they will be
    const std::size_t before = *head.cache().bytes_in_use();
    for (int turn = 0; turn < 3; ++turn) {
      auto pass = head.cache().begin({.tokens = 300});
      ASSERT_TRUE(pass) << pass.status().message();
      ASSERT_TRUE(head.append(*pass));
    }
    head.pass({.tokens = 1});
    EXPECT_EQ(*head.cache().bytes_in_use(), before);
  }
}

/// The next chunk finds its blocks though the host asked in between what the device has.
TEST(GpuCache, SettlingInAPromptForgetsNothingThatWaits) {
  OneHead<Kivi<4>> head({.slab_bytes = 4096});
  for (int chunk = 0; chunk < 5; ++chunk) {
    ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 512, .more_of_prompt = true}));
    ASSERT_TRUE(head.cache().settle());
    ASSERT_EQ(head.cache().counters().missing, 0);
  }
  ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 1, .last_of_prompt = true}));
  EXPECT_EQ(head.cache().counters().missing, 0);
}

TEST(GpuCache, AReserveThatFailsChangesNothing) {
  OneHead<Dense<half>> head({.byte_limit = std::size_t{4} << 20U});
  EXPECT_FALSE(head.cache().reserve(1 << 20));
  ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 1}));
}

}  // namespace
}  // namespace kvast

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

#if !defined(__CUDACC__)  // tests/gpu/graph_test.cu replays CUDA's own graphs

/// A pass of one token that is done again without the host, `count` times in all.
template <class S>
void replay(OneHead<S>& head, int count) {
  test::SimtDevice::Work work;
  test::SimtDevice::captured = &work;
  head.pass({.tokens = 1});
  test::SimtDevice::captured = nullptr;
  for (int at = 1; at < count; ++at) ASSERT_TRUE(test::SimtDevice::replay(work));
}

TEST(GpuCache, ReservesAddUpUntilTheyAreSettled) {
  OneHead<Kivi<4>> head({.slab_bytes = 4096});
  ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 1}));
  for (int turn = 0; turn < 3; ++turn) {
    ASSERT_TRUE(head.cache().reserve(300));
    ASSERT_NO_FATAL_FAILURE(replay(head, 300));
  }
  ASSERT_TRUE(head.cache().settle());
  EXPECT_EQ(head.cache().counters().missing, 0);
  EXPECT_EQ(head.cache().length(0), 901);
  EXPECT_EQ(*head.cache().tokens(0, 0, 0), 901);
}

/// Nothing is written beyond what there is, it is told, and the cache can be used again.
TEST(GpuCache, MoreReplaysThanReservedAreTold) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    OneHead<Kivi<4>> head({.slab_bytes = 4096});
    ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 1}));
    ASSERT_TRUE(head.cache().reserve(10));
    ASSERT_NO_FATAL_FAILURE(replay(head, 400));
    EXPECT_EQ(head.cache().begin().status().code(), StatusCode::device_failed);
    ASSERT_TRUE(head.cache().clear());
    for (const int blocks : head.cache().counters().in_use) ASSERT_EQ(blocks, 0);
    ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 100}));
    EXPECT_EQ(*head.cache().tokens(0, 0, 0), 100);
  }
}

/// A captured pass brings its own counts, whatever ran between its replays.
TEST(GpuCache, ReplaysBringTheirOwnCounts) {
  OneHead<Dense<half>> head;
  ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 1}));  // makes the tables
  test::SimtDevice::Work work;
  test::SimtDevice::captured = &work;
  ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 3}));
  test::SimtDevice::captured = nullptr;
  ASSERT_NO_FATAL_FAILURE(head.pass({.tokens = 5}));
  ASSERT_TRUE(head.cache().reserve(3));
  ASSERT_TRUE(test::SimtDevice::replay(work));
  ASSERT_TRUE(head.cache().settle());
  EXPECT_EQ(head.cache().length(0), 12);
  EXPECT_EQ(*head.cache().tokens(0, 0, 0), 12);
}

#endif

}  // namespace
}  // namespace kvast

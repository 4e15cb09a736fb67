// SPDX-License-Identifier: Apache-2.0
// Sparse coded blocks on the device are merged as on the CPU: the same tokens together, the same
// codes, the same blocks left; and no block is taken for it.
#include <gtest/gtest.h>

#include <vector>

#include "tests/simt/policy_twins.h"

namespace kvast {
namespace {

using test::TestDevice;

/// In two slices, the last with a group of 8 channels at its end; and narrower than a slice.
constexpr Shape kWide{.query_heads = 2, .heads = 1, .head_dim = 136, .value_dim = 168};
constexpr Shape kNarrow{.query_heads = 4, .heads = 2, .head_dim = 40, .value_dim = 24};

template <class S, class Policy = H2O>
void check_history(const Shape& shape, S storage,
                   Policy policy = {.heavy = 140, .recent = 20, .by_lifetime = true}) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    test::Twins<Policy, S> twins({shape}, policy, storage);
    ASSERT_NO_FATAL_FAILURE(twins.pass({230, 90}, true));
    for (int step = 0; step < 40; ++step) {
      ASSERT_NO_FATAL_FAILURE(twins.pass({step % 3 == 0 ? 20 : 5, step % 4 == 0 ? 0 : 9}, false));
      if (step % 4 == 0 || step == 39) {
        ASSERT_NO_FATAL_FAILURE(twins.compare()) << "step " << step;
      }
    }
    ASSERT_GT(twins.host(0).stats().repacked, 60) << "the history must reach what it tests";
    ASSERT_EQ(twins.device().counters().missing, 0);
  }
}
template <class S>
void check_shapes(S storage) {
  check_history(kWide, storage);
  check_history(kNarrow, storage);
}

TEST(GpuRepack, FourBits) { check_shapes(Kivi<4>{.residual = 0}); }
#if !defined(__SANITIZE_ADDRESS__)  // formats of one kind are one kernel
TEST(GpuRepack, TwoBits) { check_shapes(Kivi<2>{.residual = 32}); }
TEST(GpuRepack, Mixed) { check_shapes(Kivi<4, 2>{.residual = 0, .keep = {.tokens = 5}}); }
TEST(GpuRepack, EightBits) { check_shapes(Int8{.keep = {.tokens = 40}}); }
TEST(GpuRepack, Floats) { check_shapes(Float8<E4M3>{}); }
#endif
TEST(GpuRepack, FloatsInTiles) { check_shapes(Float8<E5M2>{}); }
TEST(GpuRepack, CodesInTiles) { check_shapes(Kivi<3>{.residual = 0}); }
#if !defined(__SANITIZE_ADDRESS__)
TEST(GpuRepack, Rotated) { check_shapes(Rotated<Kivi<4>>{{.residual = 0}}); }
#endif
TEST(GpuRepack, LargestHeads) {
  check_history({.query_heads = 1, .heads = 1, .head_dim = 512}, Kivi<4>{.residual = 0});
}

TEST(GpuRepack, ManyMergesAtOnce) {
  check_history(kNarrow, Kivi<2>{.residual = 0}, Random{.tokens_kept = 200, .recent = 10});
}

/// A cache whose pool is small: passes come as they find room.
class Cramped {
 public:
  static constexpr int kSequences = 2;
  using Cache = KVCache<Random, OnGpu<Kivi<2>, TestDevice>>;

  explicit Cramped(std::size_t byte_limit)
      : pool_({.byte_limit = byte_limit, .slab_bytes = 4096, .stream = test::stream()}),
        cache_(kNarrow, {.tokens_kept = 150, .recent = 10}, {{.residual = 0}}, pool_,
               {.sequences = kSequences}) {}

  /// How many of `passes` found no room.
  int run(int passes) {
    int refused = 0;
    for (int at = 0; at < passes; ++at) {
      const int count = random_.between(1, 60);
      auto pass = cache_.begin({.tokens = count});
      if (!pass) {
        EXPECT_EQ(pass.status().code(), StatusCode::pool_exhausted) << pass.status().message();
        ++refused;
        continue;
      }
      const auto numbers = test::on_device(random_.normals(
          static_cast<std::size_t>(kSequences * count * kNarrow.heads * kNarrow.head_dim)));
      EXPECT_TRUE(pass->append(0, numbers.data(), numbers.data()));
      EXPECT_TRUE(pass->commit());
      test::wait();
    }
    return refused;
  }
  /// Blocks that heads list; a record, keys and values each.
  int listed() {
    int blocks = 0;
    for (int table = 0; table < kSequences * kNarrow.heads; ++table) {
      Head head;
      EXPECT_TRUE(
          TestDevice::copy(&head, cache_.view(0).heads + table, sizeof head, test::stream()));
      test::wait();
      blocks += head.blocks();
    }
    return 3 * blocks;
  }
  int in_use() {
    EXPECT_TRUE(cache_.settle());
    EXPECT_EQ(cache_.counters().missing, 0);
    int blocks = 0;
    for (const int count : cache_.counters().in_use) blocks += count;
    return blocks;
  }
  Cache& cache() { return cache_; }

 private:
  test::Random random_{5};
  gpu::Pool<TestDevice> pool_;
  Cache cache_;
};

TEST(GpuRepack, TakesNoBlockThatAFullPoolLacks) {
  test::begin_schedule(test::kSchedules[0]);
  int refused = 0;
  int held = 0;
  for (std::size_t limit = std::size_t{100} << 10U; limit < std::size_t{700} << 10U;
       limit += std::size_t{75} << 10U) {
    Cramped cramped(limit);
    refused += cramped.run(40);
    held += cramped.listed();
    ASSERT_EQ(cramped.in_use(), cramped.listed()) << limit;
    ASSERT_TRUE(cramped.cache().clear());
    ASSERT_EQ(cramped.in_use(), 0) << limit;
    cramped.run(10);
    ASSERT_EQ(cramped.in_use(), cramped.listed()) << limit;
  }
  EXPECT_GT(refused, 5);
  EXPECT_GT(held, 100);
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// A pass that is dropped: before its first commit nothing happened, after it the cache is torn.
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

constexpr Shape kShape{.layers = 3, .query_heads = 2, .heads = 1, .head_dim = 16};

template <class Cache>
void run(Cache& cache, int count, int layers, int commits, const AttendOptions& options = {}) {
  test::Random random(static_cast<std::uint64_t>(cache.length()));
  auto pass = cache.begin({.tokens = count});
  for (int layer = 0; layer < layers; ++layer) {
    const auto keys = random.normals(static_cast<std::size_t>(count * 16));
    const auto queries = random.normals(static_cast<std::size_t>(count * 32));
    std::vector<float> output(queries.size());
    pass->append(layer, std::span(keys), std::span(keys));
    pass->attend(layer, std::span(queries), std::span(output), options);
    if (layer < commits) pass->commit(layer);
  }
}

TEST(DroppedPass, AfterACommitTheCacheIsTornAndTakesOnlyClear) {
  BlockPool pool;
  KVCache<H2O, Kivi<4>> cache(kShape, {.heavy = 20, .recent = 20}, {.residual = 0}, pool);
  run(cache, 50, 3, 3);
  run(cache, 3, 3, 1);
  test::expect_refused([&] { (void)cache.begin({}); }, {"begin", "clear()"});
  test::expect_refused([&] { (void)cache.fork(); }, {"fork", "torn"});
  EXPECT_EQ(cache.length(), 50);
  EXPECT_EQ(cache.bytes_in_use(), pool.bytes_in_use());
  cache.clear();
  EXPECT_EQ(pool.bytes_in_use(), 0U);
  run(cache, 50, 3, 3);
  EXPECT_EQ(cache.length(), 50);
  EXPECT_EQ(cache.tokens(2, 0), 40);
}

TEST(DroppedPass, CommitsMayComeTogetherAtTheEnd) {
  BlockPool pool;
  KVCache<H2O, Dense<float>> cache(kShape, {.heavy = 20, .recent = 20}, {}, pool);
  run(cache, 50, 3, 0);
  EXPECT_EQ(cache.length(), 0);
  EXPECT_EQ(cache.bytes_in_use(), 0U);
  run(cache, 50, 3, 3);
  EXPECT_EQ(cache.length(), 50);
}

TEST(DroppedPass, GivesBackListsAndBlocks) {
  BlockPool pool;
  KVCache<Full, Dense<float>> cache(kShape, {}, {}, pool);
  for (const int length : {0, 10, 300, 8}) {
    if (length > 0) run(cache, length, 3, 3);
    const std::size_t bytes = cache.bytes_in_use();
    for (const int count : {1, 30, 300, 3000}) {
      run(cache, count, 2, 0);
      EXPECT_EQ(cache.bytes_in_use(), bytes) << count << " tokens dropped at " << cache.length();
      EXPECT_EQ(pool.bytes_in_use(), bytes);
    }
  }
}

// A slot that was taken back must not remember a position beyond what a bias covers.
TEST(DroppedPass, LeavesNoPositionBehind) {
  BlockPool pool;
  KVCache<Full, Dense<float>> cache(Shape{.query_heads = 2, .heads = 1, .head_dim = 16}, {}, {},
                                    pool);
  run(cache, 8, 1, 1);
  {
    const std::vector<int> far{100000000, 200000000, 1000000000};
    const std::vector<float> keys(48);
    auto pass = cache.begin({.tokens = 3, .positions = far});
    pass->append(0, std::span(keys), std::span(keys));
  }
  const std::vector<float> bias(9, 0.0F);  // a read at position 1e9 is outside of the address space
  run(cache, 1, 1, 1, {.bias = {.data = bias.data(), .positions = 9}});
  EXPECT_EQ(cache.length(), 9);
}

TEST(DroppedPass, AnErrorInsideLeavesThePassOpen) {
  BlockPool pool;
  KVCache<Full, Dense<float>> cache(kShape, {}, {}, pool);
  run(cache, 40, 3, 3);
  const std::size_t bytes = cache.bytes_in_use();
  const std::vector<float> keys(16, 1.0F);
  const std::vector<float> bad(16, NAN);
  {
    auto pass = cache.begin({});
    EXPECT_THROW(pass->append(0, std::span(bad), std::span(keys)), Error);
    EXPECT_THROW(pass->append(0, std::span(keys), std::span(bad)), Error);
    pass->append(0, std::span(keys), std::span(keys));  // corrected, and the pass goes on
    pass->commit(0);
    for (int layer = 1; layer < 3; ++layer) {
      pass->append(layer, std::span(keys), std::span(keys));
      pass->commit(layer);
    }
  }
  EXPECT_EQ(cache.length(), 41);
  EXPECT_EQ(cache.bytes_in_use(), bytes);
}

TEST(DroppedPass, AMovedPassGoesOn) {
  BlockPool pool;
  KVCache<Full, Dense<float>> cache(Shape{.head_dim = 16}, {}, {}, pool);
  const std::vector<float> keys(16, 1.0F);
  auto pass = cache.begin({});
  auto moved = std::move(*pass);
  EXPECT_THROW(pass->append(0, std::span(keys), std::span(keys)), Error);
  moved.append(0, std::span(keys), std::span(keys));
  moved.commit(0);
  EXPECT_EQ(cache.length(), 1);
  test::expect_refused([&] { moved.append(0, std::span(keys), std::span(keys)); },
                       {"pass: it is over"});
}

TEST(DroppedPass, ClearEndsAnOpenPass) {
  BlockPool pool;
  KVCache<Full, Dense<float>> cache(Shape{.head_dim = 16}, {}, {}, pool);
  const std::vector<float> keys(16, 1.0F);
  auto pass = cache.begin({});
  pass->append(0, std::span(keys), std::span(keys));
  test::expect_refused([&] { (void)cache.begin({}); }, {"a pass is open"});
  cache.clear();
  EXPECT_THROW(pass->commit(0), Error);
  auto next = cache.begin({});
  EXPECT_TRUE(next);
  EXPECT_EQ(pool.bytes_in_use(), 0U);
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// BlockPool from several threads: promises hold, blocks are apart, bytes add up. Also a test for
// the sanitizers.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "kvast/core/pool.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

void churn(BlockPool& pool, std::uint64_t seed, std::atomic<int>& damaged) {
  test::Random random(seed);
  BlockPool::Reservation promised;
  struct Mine {
    std::byte* block;
    std::size_t bytes;
    std::byte mark;
  };
  std::vector<Mine> mine;
  for (int turn = 0; turn < 3000; ++turn) {
    if (mine.size() < 40 && random.chance(0.6)) {
      const std::size_t bytes = static_cast<std::size_t>(64 * random.between(1, 5));
      const BlockPool::Request request{bytes, 2};
      if (!pool.reserve(promised, {&request, 1})) continue;
      const auto mark = static_cast<std::byte>(random.below(255) + 1);
      mine.push_back({pool.take(promised, bytes), bytes, mark});
      std::fill_n(mine.back().block, bytes, mark);
    } else if (!mine.empty()) {
      const auto at = static_cast<std::size_t>(random.below(static_cast<int>(mine.size())));
      for (std::size_t byte = 0; byte < mine[at].bytes; ++byte)
        damaged += mine[at].block[byte] == mine[at].mark ? 0 : 1;
      if (random.chance(0.2)) {
        pool.share(mine[at].block);
        mine.push_back(mine[at]);
      } else {
        pool.release(mine[at].block, promised);
        mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    if (turn % 7 == 0) pool.settle(promised);
    if (turn % 101 == 0) pool.trim();
  }
  for (const Mine& one : mine) pool.release(one.block, promised);
  pool.settle(promised);
}

TEST(PoolThreads, ThreeThreadsOnOnePool) {
  BlockPool pool({.byte_limit = 1U << 20U});
  std::atomic<int> damaged{0};
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 1; seed <= 3; ++seed)
    threads.emplace_back([&pool, &damaged, seed] { churn(pool, seed, damaged); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(damaged, 0);
  EXPECT_EQ(pool.bytes_in_use(), 0U);
  pool.trim();
  EXPECT_EQ(pool.bytes_held(), 0U);
}

// Two owners on two threads: whoever is last frees, once.
TEST(PoolThreads, OwnersOnTwoThreads) {
  BlockPool pool;
  for (int turn = 0; turn < 200; ++turn) {
    BlockPool::Reservation first;
    BlockPool::Reservation second;
    const BlockPool::Request request{256, 8};
    ASSERT_TRUE(pool.reserve(first, {&request, 1}));
    std::vector<std::byte*> blocks;
    for (int count = 0; count < 8; ++count) {
      blocks.push_back(pool.take(first, 256));
      pool.share(blocks.back());
    }
    std::thread other([&] {
      for (std::byte* block : blocks) pool.release(block, second);
    });
    for (std::byte* block : blocks) pool.release(block, first);
    other.join();
    pool.settle(first);
    pool.settle(second);
    ASSERT_EQ(pool.bytes_in_use(), 0U);
  }
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// BlockPool: what it hands out, what it promises, what it refuses, and what it gives back.
#include "kvast/core/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

namespace kvast {
namespace {

/// An allocator that counts, and refuses beyond a limit.
struct Ledger {
  std::size_t held = 0;
  std::size_t limit = std::numeric_limits<std::size_t>::max();
  int calls = 0;
  int refused = 0;
  std::map<void*, std::size_t> live;

  Allocator allocator() {
    return {.context = this,
            .allocate = [](void* context, std::size_t bytes, std::size_t alignment) -> void* {
              auto& self = *static_cast<Ledger*>(context);
              ++self.calls;
              if (self.held + bytes > self.limit) {
                ++self.refused;
                return nullptr;
              }
              void* memory =
                  std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
              std::memset(memory, 0xEE, bytes);  // dirty: the pool must not count on zeros
              self.held += bytes;
              self.live[memory] = bytes;
              return memory;
            },
            .release =
                [](void* context, void* memory, std::size_t bytes, std::size_t) {
                  auto& self = *static_cast<Ledger*>(context);
                  EXPECT_EQ(self.live.at(memory), bytes);
                  self.live.erase(memory);
                  self.held -= bytes;
                  std::free(memory);
                }};
  }
};

bool all_zero(const std::byte* block, std::size_t bytes) {
  return std::all_of(block, block + bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

Status reserve(BlockPool& pool, BlockPool::Reservation& promised,
               std::vector<BlockPool::Request> requests) {
  return pool.reserve(promised, requests);
}

TEST(Pool, BlocksAreAlignedZeroedAndApart) {
  Ledger ledger;
  {
    BlockPool pool({.allocator = ledger.allocator()});
    BlockPool::Reservation promised;
    std::vector<std::pair<std::byte*, std::size_t>> blocks;
    std::size_t bytes_in_use = 0;
    for (const std::size_t bytes : {1U, 64U, 65U, 152U, 511U, 512U, 1000U, 4096U, 70000U}) {
      const std::size_t unit = bytes < 512 ? 32 : 64;
      ASSERT_TRUE(reserve(pool, promised, {{bytes, 50}}));
      for (int count = 0; count < 50; ++count) {
        std::byte* block = pool.take(promised, bytes);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % unit, 0U);
        EXPECT_TRUE(all_zero(block, BlockPool::charged(bytes)));
        std::fill_n(block, bytes, static_cast<std::byte>(blocks.size()));
        blocks.emplace_back(block, bytes);
        bytes_in_use += (bytes + unit - 1) / unit * unit;
        EXPECT_EQ(pool.bytes_in_use(), bytes_in_use);
      }
    }
    for (std::size_t index = 0; index < blocks.size(); ++index) {
      const auto [block, bytes] = blocks[index];
      EXPECT_TRUE(
          std::all_of(block, block + bytes,
                      [&](std::byte byte) { return byte == static_cast<std::byte>(index); }))
          << "block " << index << " was overwritten by another";
      pool.release(block, promised);
    }
    EXPECT_EQ(pool.bytes_in_use(), 0U);
    EXPECT_EQ(pool.bytes_held(), ledger.held);
    EXPECT_GT(ledger.held, 0U);
  }
  EXPECT_EQ(ledger.held, 0U) << "the pool's destructor returns every slab";
}

TEST(Pool, ABlockIsZeroedAgainWhenItComesBack) {
  BlockPool pool;
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{640, 2}}));
  std::byte* first = pool.take(promised, 640);
  std::fill_n(first, 640, std::byte{0xFF});
  pool.release(first, promised);
  std::byte* second = pool.take(promised, 640);
  std::byte* third = pool.take(promised, 640);
  EXPECT_TRUE(second == first || third == first) << "freed blocks are used before fresh ones";
  EXPECT_TRUE(all_zero(second, 640));
  EXPECT_TRUE(all_zero(third, 640));
}

TEST(Pool, SizesThatRoundToTheSameShareAClass) {
  Ledger ledger;
  BlockPool pool({.allocator = ledger.allocator()});
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{97, 1}, {128, 1}, {100, 1}}));
  EXPECT_EQ(ledger.calls, 1) << "one slab serves 97, 100 and 128 bytes";
  std::byte* block = pool.take(promised, 97);
  EXPECT_EQ(pool.bytes_in_use(), 128U);
  pool.release(block, promised);
}

TEST(Pool, TakingWithoutAPromiseIsMisuse) {
  BlockPool pool;
  BlockPool::Reservation promised;
  EXPECT_THROW(pool.take(promised, 64), Error);
  ASSERT_TRUE(reserve(pool, promised, {{64, 1}}));
  EXPECT_THROW(pool.take(promised, 128), Error);
  pool.settle(promised);
  EXPECT_THROW(pool.take(promised, 64), Error);
}

TEST(Pool, AReservationIsAllOrNothing) {
  BlockPool pool({.byte_limit = 1U << 20U});
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{64, 10}}));
  const Status status = reserve(pool, promised, {{64, 5}, {4096, 20}, {4096, 1000}});
  EXPECT_EQ(status.code(), StatusCode::pool_exhausted);
  for (const char* part : {"1000 blocks of 4096 bytes", "limit 1048576", "0 bytes in use"})
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  for (int count = 0; count < 10; ++count) (void)pool.take(promised, 64);
  EXPECT_THROW(pool.take(promised, 64), Error) << "the failed call promised nothing";
  EXPECT_THROW(pool.take(promised, 4096), Error);
}

TEST(Pool, APromiseIsNotGivenToAnother) {
  BlockPool pool({.byte_limit = 1U << 17U});
  BlockPool::Reservation mine;
  BlockPool::Reservation yours;
  int count = 0;
  while (reserve(pool, mine, {{8192, 1}})) ++count;
  EXPECT_GE(count, 10);
  EXPECT_FALSE(reserve(pool, yours, {{8192, 1}}));
  pool.settle(mine);
  EXPECT_TRUE(reserve(pool, yours, {{8192, count}}));
}

TEST(Pool, TheByteLimitIsOfRealMemoryAndHolds) {
  Ledger ledger;
  const std::size_t limit = 3U << 20U;
  BlockPool pool({.byte_limit = limit, .allocator = ledger.allocator()});
  BlockPool::Reservation promised;
  while (reserve(pool, promised, {{1000, 7}})) EXPECT_LE(ledger.held, limit);
  EXPECT_LE(pool.bytes_held(), limit);
  EXPECT_GT(pool.bytes_held(), limit / 2);
}

// Trimming in order to make room must not free the room made a moment before.
TEST(Pool, AskingForMoreThanTheLimitEnds) {
  for (const std::size_t block : {64U, 1000U, 60000U}) {
    BlockPool pool({.byte_limit = 100000});
    BlockPool::Reservation promised;
    EXPECT_FALSE(reserve(pool, promised, {{block, 100000}}));
    EXPECT_TRUE(reserve(pool, promised, {{block, 1}}));
  }
}

TEST(Pool, AskingForMoreThanTheAllocatorHasEnds) {
  Ledger ledger;
  ledger.limit = 100000;
  BlockPool pool({.allocator = ledger.allocator()});
  BlockPool::Reservation promised;
  const Status status = reserve(pool, promised, {{1000, 100000}});
  EXPECT_EQ(status.code(), StatusCode::pool_exhausted);
  EXPECT_TRUE(reserve(pool, promised, {{1000, 1}}));
}

TEST(Pool, EmptySlabsOfOtherSizesMakeRoom) {
  BlockPool pool({.byte_limit = 70000});
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{64, 1}}));
  std::byte* block = pool.take(promised, 64);
  pool.release(block, promised);
  EXPECT_FALSE(reserve(pool, promised, {{1024, 1}})) << "its slab is still promised";
  pool.settle(promised);
  EXPECT_TRUE(reserve(pool, promised, {{1024, 1}})) << "the slab of 64 bytes was returned";
}

TEST(Pool, TrimReturnsEmptySlabsAndKeepsPromises) {
  Ledger ledger;
  BlockPool pool({.allocator = ledger.allocator()});
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{4096, 100}}));
  std::vector<std::byte*> blocks;
  for (int count = 0; count < 100; ++count) blocks.push_back(pool.take(promised, 4096));
  for (std::size_t index = 1; index < blocks.size(); ++index) pool.release(blocks[index], promised);
  pool.trim();
  for (int count = 0; count < 99; ++count) (void)pool.take(promised, 4096);  // still promised
  EXPECT_THROW((void)pool.take(promised, 4096), Error);
}

TEST(Pool, TrimAfterSettlingReturnsAlmostAll) {
  Ledger ledger;
  BlockPool pool({.allocator = ledger.allocator()});
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{4096, 1000}}));
  std::byte* block = pool.take(promised, 4096);
  const std::size_t full = ledger.held;
  pool.settle(promised);
  pool.trim();
  EXPECT_LT(ledger.held, full / 2);
  pool.release(block, promised);
  pool.settle(promised);
  pool.trim();
  EXPECT_EQ(ledger.held, 0U);
  EXPECT_EQ(pool.bytes_held(), 0U);
  ASSERT_TRUE(reserve(pool, promised, {{4096, 3}}));  // and it goes on after that
  EXPECT_TRUE(all_zero(pool.take(promised, 4096), 4096));
}

TEST(Pool, BlocksLargerThanASlab) {
  Ledger ledger;
  BlockPool pool({.slab_bytes = 4096, .allocator = ledger.allocator()});
  BlockPool::Reservation promised;
  const std::size_t large = 300000;
  ASSERT_TRUE(reserve(pool, promised, {{large, 3}, {64, 200}}));
  std::vector<std::byte*> blocks;
  for (int count = 0; count < 3; ++count) {
    blocks.push_back(pool.take(promised, large));
    EXPECT_TRUE(all_zero(blocks.back(), large));
    std::fill_n(blocks.back(), large, std::byte{1});
  }
  for (int count = 0; count < 200; ++count) EXPECT_TRUE(all_zero(pool.take(promised, 64), 64));
  pool.share(blocks[1]);
  EXPECT_TRUE(pool.is_shared(blocks[1]));
  EXPECT_FALSE(pool.is_shared(blocks[0]));
  for (std::byte* block : blocks) pool.release(block, promised);
  pool.settle(promised);
  const std::size_t before = ledger.held;
  pool.trim();
  EXPECT_GE(before - ledger.held, 2 * large);
  EXPECT_EQ(pool.bytes_in_use(), BlockPool::charged(large) + 200 * 64);
}

TEST(Pool, TheLastOwnerFrees) {
  BlockPool pool;
  BlockPool::Reservation promised;
  ASSERT_TRUE(reserve(pool, promised, {{128, 1}}));
  std::byte* block = pool.take(promised, 128);
  pool.share(block);
  pool.share(block);
  pool.release(block, promised);
  EXPECT_TRUE(pool.is_shared(block));
  pool.release(block, promised);
  EXPECT_FALSE(pool.is_shared(block));
  EXPECT_EQ(pool.bytes_in_use(), 128U);
  pool.release(block, promised);
  EXPECT_EQ(pool.bytes_in_use(), 0U);
}

TEST(Pool, SettingsAreChecked) {
  for (const std::size_t bytes : {0U, 64U, 2048U, 4097U, 6000U}) {
    try {
      BlockPool pool({.slab_bytes = bytes});
      ADD_FAILURE() << bytes;
    } catch (const Error& error) {
      const std::string wanted = "slab_bytes is " + std::to_string(bytes);
      EXPECT_NE(std::string(error.what()).find(wanted), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(BlockPool({.allocator = {}}), Error);
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// The pool on the device: blocks that threads take and give at the same time, promises, limits.
#include "kvast/gpu/pool.cuh"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "kvast/gpu/ledger.h"
#include "tests/simt/backend.h"
#include "tests/support/refused.h"

namespace kvast::gpu {
namespace {

using test::DeviceVector;
using test::TestDevice;
using TestPool = Pool<TestDevice>;

/// Every thread takes, marks what it got, gives every second one back, and takes again.
struct TakeAndGive {
  static constexpr int kThreads = 64;
  BlockClass blocks{};
  std::byte** got = nullptr;  ///< [blocks * kThreads]

  template <class Block>
  KVAST_HD void operator()(Block& block) const {
    const int at = block.index() * kThreads + block.thread();
    std::byte* mine = take_block(block, blocks);
    if (mine != nullptr) *reinterpret_cast<int*>(mine) = at;
    block.sync();
    if (at % 2 == 0 && mine != nullptr) {
      give_block(block, blocks, mine);
      mine = take_block(block, blocks);
    }
    got[at] = mine;
  }
};

TEST(Pool, EveryBlockHasOneOwner) {
  constexpr int kBlocks = 20;
  constexpr int kCount = kBlocks * TakeAndGive::kThreads;
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    TestPool pool({.slab_bytes = 4096, .stream = test::stream()});
    const int size = pool.class_of(100);
    EXPECT_EQ(pool.block_bytes(size), 128U);
    const TestPool::Promise promise{size, kCount};
    ASSERT_TRUE(pool.promise({&promise, 1}));
    DeviceVector<Counters> counters(1);
    DeviceVector<std::byte*> got(kCount);
    const BlockClass blocks{pool.list(size), counters[0].in_use, &counters[0].missing, 128};
    ASSERT_TRUE(TestDevice::launch(TakeAndGive{blocks, got.data()}, {kBlocks, 0}, test::stream()));
    test::wait();
    const std::set<std::byte*> different(got.begin(), got.end());
    EXPECT_EQ(different.size(), static_cast<std::size_t>(kCount));
    EXPECT_EQ(different.count(nullptr), 0U);
    EXPECT_EQ(counters[0].in_use[0], kCount);
    EXPECT_EQ(counters[0].missing, 0);
  }
}

TEST(Pool, AnEmptyListGivesNothingAndSaysSo) {
  test::begin_schedule(test::kSchedules[0]);
  TestPool pool({.slab_bytes = 4096, .stream = test::stream()});
  const int size = pool.class_of(4096);
  const TestPool::Promise promise{size, 3};
  ASSERT_TRUE(pool.promise({&promise, 1}));
  DeviceVector<Counters> counters(1);
  DeviceVector<std::byte*> got(TakeAndGive::kThreads);
  const BlockClass blocks{pool.list(size), counters[0].in_use, &counters[0].missing, 4096};
  ASSERT_TRUE(TestDevice::launch(TakeAndGive{blocks, got.data()}, {1, 0}, test::stream()));
  test::wait();
  EXPECT_GT(counters[0].missing, 0);
  EXPECT_LE(std::count_if(got.begin(), got.end(), [](std::byte* one) { return one != nullptr; }),
            16);
}

TEST(Pool, PromisesAreAllOrNothingAndComeBack) {
  test::begin_schedule(test::kSchedules[0]);
  TestPool pool({.byte_limit = 400000, .slab_bytes = 65536, .stream = test::stream()});
  const int small = pool.class_of(64);
  const int large = pool.class_of(65536);
  EXPECT_EQ(pool.class_of(33), small);
  const TestPool::Promise both[] = {{small, 10}, {large, 100}};
  const Status refused = pool.promise(both);
  EXPECT_EQ(refused.code(), StatusCode::pool_exhausted);
  const std::size_t lists = pool.bytes_held();  // and no slab
  EXPECT_LE(lists, 4096U);
  const TestPool::Promise few[] = {{small, 1024}, {large, 1}};
  ASSERT_TRUE(pool.promise(few));
  const std::size_t held = pool.bytes_held();
  EXPECT_GE(held, lists + 1024 * 64 + 65536);
  pool.take_back(few);
  ASSERT_TRUE(pool.promise(few));  // of the slabs that were made before
  EXPECT_EQ(pool.bytes_held(), held);
}

TEST(Ledger, CountsWithoutEvictionAreExact) {
  Ledger ledger({.coded = true, .evicts = false, .residual = 10, .first_coded = 0}, 2);
  const auto counts = [](std::size_t at) { return at == 0 ? 50 : 0; };
  Bound bound = ledger.during(counts, true);
  EXPECT_EQ(bound.dense, 2);
  EXPECT_EQ(bound.coded, 1);
  EXPECT_EQ(ledger.during(counts, false).coded, 0);
  ledger.advance(counts, true);  // 18 wait
  bound = ledger.during(counts, true);
  EXPECT_EQ(bound.dense, 3);
  EXPECT_EQ(bound.coded, 2);
  ledger.forget(0);
  EXPECT_EQ(ledger.during(counts, true).coded, 1);
}

/// Where the host does not know what replays sealed, no more is coded than came.
TEST(Ledger, JumpsCountNoTokenTwice) {
  for (const bool evicts : {false, true}) {
    Ledger ledger({.coded = true, .evicts = evicts, .residual = 10, .first_coded = 0}, 1);
    for (int length = 100; length <= 2000; length += 100)
      ledger.jump([&](std::size_t) { return length; });
    const Bound bound = ledger.during([](std::size_t) { return 1; }, true);
    EXPECT_EQ(bound.coded, 2001 / 32);
  }
}

}  // namespace
}  // namespace kvast::gpu

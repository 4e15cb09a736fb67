// SPDX-License-Identifier: Apache-2.0
// Two threads, two caches, one pool: each goes on as if alone. Also a test for the sanitizers.
#include <gtest/gtest.h>

#include <thread>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr Shape kShape{.layers = 2, .query_heads = 4, .heads = 2, .head_dim = 32};

template <class Cache>
std::vector<float> decode(Cache& cache, int first, int steps, std::uint64_t seed) {
  test::Random random(seed);
  std::vector<float> all;
  for (int step = 0; step < steps; ++step) {
    const int count = step == 0 ? first : 1;
    auto pass = cache.begin({.tokens = count, .last_of_prompt = step == 0});
    for (int layer = 0; layer < 2; ++layer) {
      const auto keys = random.normals(static_cast<std::size_t>(count) * 64);
      const auto queries = random.normals(static_cast<std::size_t>(count) * 128);
      std::vector<float> output(queries.size());
      pass->append(layer, std::span(keys), std::span(keys));
      pass->attend(layer, std::span(queries), std::span(output));
      pass->commit(layer);
      all.insert(all.end(), output.end() - 128, output.end());
    }
  }
  return all;
}

using Cache = KVCache<H2O, AnyStorage>;

void expect_independent(const AnyStorage& storage) {
  const H2O policy{.heavy = 60, .recent = 60};
  std::vector<float> wanted[2];
  for (std::uint64_t seed = 0; seed < 2; ++seed) {
    BlockPool pool;
    Cache cache(kShape, policy, storage, pool);
    wanted[seed] = decode(cache, 200, 300, seed);
  }
  BlockPool pool;
  std::vector<float> got[2];
  std::vector<std::thread> threads;
  for (std::uint64_t seed = 0; seed < 2; ++seed) {
    threads.emplace_back([&, seed] {
      Cache cache(kShape, policy, storage, pool);
      got[seed] = decode(cache, 200, 300, seed);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(got[0], wanted[0]);
  EXPECT_EQ(got[1], wanted[1]);
  EXPECT_EQ(pool.bytes_in_use(), 0U);
}

TEST(Threads, TwoCachesOnOnePool) {
  expect_independent(Dense<half>{});
  expect_independent(Kivi<4>{.residual = 16});
}

// A fork and its origin share payload; each on its own thread copies before it writes.
TEST(Threads, AForkAndItsOrigin) {
  for (std::uint64_t turn = 0; turn < 5; ++turn) {
    BlockPool pool;
    const H2O policy{.heavy = 60, .recent = 60};
    Cache origin(kShape, policy, Kivi<4>{.residual = 16}, pool);
    (void)decode(origin, 150, 20, 7);
    Cache alone(kShape, policy, Kivi<4>{.residual = 16}, pool);
    (void)decode(alone, 150, 20, 7);
    auto copy = origin.fork();
    ASSERT_TRUE(copy);
    std::vector<float> one, two;
    std::thread first([&] { one = decode(origin, 1, 100, turn); });
    std::thread second([&] { two = decode(*copy, 1, 100, turn); });
    first.join();
    second.join();
    EXPECT_EQ(one, decode(alone, 1, 100, turn));
    EXPECT_EQ(two, one);
  }
}

}  // namespace
}  // namespace kvast

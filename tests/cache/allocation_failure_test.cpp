// SPDX-License-Identifier: Apache-2.0
// The allocator underneath fails at its n-th call, for every n: a Status, and the cache as it was.
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

/// Refuses its n-th call and all after it until it is healed; counts from when it is armed.
struct Failing {
  int calls = 0;
  int fails_at = -1;

  Allocator allocator() {
    return {.context = this,
            .allocate = [](void* context, std::size_t bytes, std::size_t alignment) -> void* {
              auto& self = *static_cast<Failing*>(context);
              if (self.fails_at >= 0 && self.calls++ >= self.fails_at) return nullptr;
              return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
            },
            .release = [](void*, void* memory, std::size_t, std::size_t) { std::free(memory); }};
  }
};

constexpr Shape kShape{.layers = 2, .query_heads = 2, .heads = 1, .head_dim = 32};

template <class Storage>
struct Bench {
  using Cache = KVCache<H2O, AnyStorage>;
  Failing failing;
  // small slabs, so that growing takes many calls
  BlockPool pool{{.slab_bytes = 4096, .allocator = failing.allocator()}};
  Cache cache{kShape, {.heavy = 30, .recent = 30, .when = When::prompt()}, Storage{}, pool};

  Status run(int tokens, bool last, std::vector<float>& outputs) {
    return run(cache, tokens, last, outputs);
  }
  static Status run(Cache& to, int tokens, bool last, std::vector<float>& outputs) {
    test::Random random(static_cast<std::uint64_t>(to.length()));
    auto pass = to.begin({.tokens = tokens, .last_of_prompt = last});
    if (!pass) return pass.status();
    outputs.clear();
    for (int layer = 0; layer < 2; ++layer) {
      const auto size = static_cast<std::size_t>(tokens) * 32;
      const auto keys = random.normals(size);
      const auto values = random.normals(size);
      const auto queries = random.normals(2 * size);
      std::vector<float> output(2 * size);
      pass->append(layer, std::span(keys), std::span(values));
      pass->attend(layer, std::span(queries), std::span(output));
      pass->commit(layer);
      outputs.insert(outputs.end(), output.begin(), output.end());
    }
    return {};
  }
};

template <class Storage>
class AllocationFailure : public testing::Test {};
using Storages = testing::Types<Dense<half>, Kivi<4>>;
TYPED_TEST_SUITE(AllocationFailure, Storages);

TYPED_TEST(AllocationFailure, AtEveryCallOfAPassTheCacheIsAsBefore) {
  Bench<TypeParam> calm;
  std::vector<float> wanted_first, wanted, outputs;
  ASSERT_TRUE(calm.run(70, true, wanted_first));
  ASSERT_TRUE(calm.run(200, true, wanted));
  bool finished = false;
  int failures = 0;
  for (int call = 0; !finished; ++call) {
    Bench<TypeParam> bench;
    ASSERT_TRUE(bench.run(70, true, outputs));
    const std::size_t bytes = bench.cache.bytes_in_use();
    const std::vector<int> kept = bench.cache.kept(1, 0);
    bench.failing.fails_at = call;
    const Status status = bench.run(200, true, outputs);
    finished = static_cast<bool>(status);
    if (finished) break;
    ++failures;
    ASSERT_EQ(status.code(), StatusCode::pool_exhausted);
    ASSERT_FALSE(status.message().empty());
    ASSERT_EQ(bench.cache.bytes_in_use(), bytes);
    ASSERT_EQ(bench.pool.bytes_in_use(), bytes);
    ASSERT_EQ(bench.cache.length(), 70);
    ASSERT_EQ(bench.cache.kept(1, 0), kept);
    bench.failing.fails_at = -1;
    ASSERT_TRUE(bench.run(200, true, outputs)) << "memory is there again";
    ASSERT_EQ(outputs, wanted) << "call " << call;
    ASSERT_EQ(bench.cache.bytes_in_use(), calm.cache.bytes_in_use());
  }
  EXPECT_GE(failures, 10) << "the pass must need many slabs for this to test anything";
}

TYPED_TEST(AllocationFailure, OfAFork) {
  std::vector<float> outputs, wanted;
  Bench<TypeParam> calm;
  ASSERT_TRUE(calm.run(400, false, outputs));
  ASSERT_TRUE(calm.run(1, false, wanted));
  int failures = 0;
  for (int call = 0;; ++call) {
    Bench<TypeParam> bench;
    ASSERT_TRUE(bench.run(400, false, outputs));
    bench.pool.trim();
    const std::size_t bytes = bench.cache.bytes_in_use();
    bench.failing.calls = 0;
    bench.failing.fails_at = call;
    auto copy = bench.cache.fork();
    bench.failing.fails_at = -1;
    if (copy) {
      copy->clear();
    } else {
      ++failures;
      ASSERT_EQ(copy.status().code(), StatusCode::pool_exhausted);
    }
    ASSERT_EQ(bench.cache.bytes_in_use(), bytes);
    ASSERT_EQ(bench.pool.bytes_in_use(), bytes);
    ASSERT_TRUE(bench.run(1, false, outputs));
    ASSERT_EQ(outputs, wanted);
    if (copy) break;
  }
  EXPECT_GE(failures, 1);
}

// A shared block must be copied before it is written: also that is reserved.
TYPED_TEST(AllocationFailure, WritingToASharedBlock) {
  std::vector<float> outputs, wanted;
  Bench<TypeParam> calm;
  ASSERT_TRUE(calm.run(200, true, outputs));
  ASSERT_TRUE(calm.run(3, false, wanted));
  int failures = 0;
  for (int call = 0;; ++call) {
    Bench<TypeParam> bench;
    ASSERT_TRUE(bench.run(200, true, outputs));
    auto copy = bench.cache.fork();
    ASSERT_TRUE(copy);
    bench.pool.trim();
    const std::size_t bytes = bench.pool.bytes_in_use();
    bench.failing.calls = 0;
    bench.failing.fails_at = call;
    const Status status = Bench<TypeParam>::run(*copy, 3, false, outputs);
    bench.failing.fails_at = -1;
    if (!status) {
      ++failures;
      ASSERT_EQ(bench.pool.bytes_in_use(), bytes);
      ASSERT_EQ(copy->length(), 200);
      ASSERT_TRUE(Bench<TypeParam>::run(*copy, 3, false, outputs));
    }
    ASSERT_EQ(outputs, wanted);
    ASSERT_TRUE(bench.run(3, false, outputs)) << "the origin has its blocks still";
    ASSERT_EQ(outputs, wanted);
    if (status) break;
  }
  EXPECT_GE(failures, 2);
}

TEST(AllocationFailure, TheMessageSaysWhatWasAskedAndWhatIsThere) {
  BlockPool pool({.byte_limit = 200000});
  KVCache<Full, Dense<half>> cache(kShape, {}, {}, pool);
  const auto pass = cache.begin({.tokens = 100000});
  ASSERT_FALSE(pass);
  for (const char* part : {"blocks of", "bytes in use", "limit 200000"})
    EXPECT_NE(pass.status().message().find(part), std::string::npos) << pass.status().message();
  EXPECT_TRUE(cache.begin({.tokens = 10}));
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// A long run at a fixed budget: bytes do not creep, and a step allocates nothing after warm-up.
// This executable counts its own operator new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace {

std::atomic<long> news{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  ++news;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
// apart, or the compiler takes free() for a mismatch with the new that it cannot see is ours
[[gnu::noinline]] void give_back(void* memory) { std::free(memory); }

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { give_back(memory); }
void operator delete[](void* memory) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete[](void* memory, std::size_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { give_back(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { give_back(memory); }

namespace kvast {
namespace {

std::atomic<long> slabs{0};

PoolOptions counting_pool() {
  Allocator allocator = heap_allocator();
  allocator.allocate = [](void*, std::size_t bytes, std::size_t alignment) -> void* {
    ++slabs;
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  };
  return {.allocator = allocator};
}

constexpr Shape kShape{.layers = 2, .query_heads = 2, .heads = 1, .head_dim = 8};

/// Steps over a few tensors made beforehand, so that only the cache can allocate.
template <class Cache>
class Stepper {
 public:
  explicit Stepper(Cache& cache) : cache_(cache) {
    test::Random random(5);
    numbers_ = random.normals(4096);
  }
  void step(int tokens = 1) {
    auto pass = cache_.begin({.tokens = tokens});
    for (int layer = 0; layer < 2; ++layer) {
      const float* from = numbers_.data() + turn_++ % 97 * 8;
      pass->append(layer, from, from + 8);
      pass->attend(layer, from + 16, output_);
      pass->commit(layer);
    }
  }

 private:
  Cache& cache_;
  std::vector<float> numbers_;
  float output_[1024] = {};
  std::size_t turn_ = 0;
};

template <class Policy>
void expect_steady(Policy policy, const AnyStorage& storage, int warm_up, int steps,
                   const CacheOptions& options = {}) {
  BlockPool pool(counting_pool());
  KVCache<Policy, AnyStorage> cache(kShape, policy, storage, pool, options);
  Stepper stepper(cache);
  for (int step = 0; step < warm_up; ++step) stepper.step(step % 7 == 0 ? 5 : 1);
  std::size_t most = 0;
  for (int step = 0; step < warm_up; ++step) {
    stepper.step();
    most = std::max(most, cache.bytes_in_use());
  }
  const long before = news;
  const long slabs_before = slabs;
  std::size_t later = 0;
  for (int step = 0; step < steps; ++step) {
    stepper.step();
    later = std::max(later, cache.bytes_in_use());
  }
  EXPECT_EQ(news, before) << "operator new was called in a step";
  EXPECT_EQ(slabs, slabs_before) << "the pool asked for a slab in a step";
  EXPECT_LE(later, most) << "bytes crept";
  EXPECT_EQ(cache.bytes_in_use(), pool.bytes_in_use());
}

TEST(Steady, HundredThousandStepsOfADenseCache) {
  expect_steady(H2O{.heavy = 16, .recent = 16}, Dense<half>{}, 2000, 100000);
}
TEST(Steady, HundredThousandStepsOfACodedCache) {
  expect_steady(H2O{.heavy = 64, .recent = 32}, Kivi<4>{.residual = 16}, 5000, 100000);
}
TEST(Steady, EveryPolicyAllocatesNothing) {
  expect_steady(StreamingLLM{.sinks = 4, .recent = 60}, Dense<float>{}, 500, 3000);
  expect_steady(L2Norm{.tokens_kept = 64, .skip = {}, .when = When::full(8)}, Dense<half>{}, 500,
                3000);
  expect_steady(TOVA{.tokens_kept = 64}, Dense<half>{}, 500, 3000);
  expect_steady(StreamingLLM{.sinks = 4, .recent = 90}, Kivi<4>{.residual = 0}, 1000, 3000);
  expect_steady(SnapKV{.tokens_kept = 64, .window = 8, .when = When::step()}, Dense<half>{}, 500,
                3000);
  expect_steady(SnapKV{.tokens_kept = 64, .window = 8, .when = When::full(8)}, Kivi<4>{}, 500,
                3000);
  expect_steady(Corm{.window = 1 << 29, .recent = 8, .cap = 50}, Dense<half>{}, 500, 3000);
  expect_steady(Scissorhands{.tokens_kept = 64, .window = 33, .when = When::full(8)}, Dense<half>{},
                500, 3000);
  expect_steady(Random{.tokens_kept = 64}, Dense<half>{}, 500, 3000);
  expect_steady(Pyramid<H2O>{{.heavy = 32, .recent = 32}}, Dense<half>{}, 500, 3000);
  expect_steady(Every<Protect<TOVA>, 4>{{{.tokens_kept = 64}, 4, 4}}, Dense<half>{}, 500, 3000);
}
// Evicts a varying number of tokens, so only a bound is known.
TEST(Steady, CormStaysWithinItsWindow) {
  BlockPool pool(counting_pool());
  KVCache<Corm, AnyStorage> cache(kShape, {.window = 3, .recent = 40}, Dense<half>{}, pool);
  Stepper stepper(cache);
  for (int step = 0; step < 2000; ++step) stepper.step();
  const std::size_t early = cache.bytes_in_use();
  for (int step = 0; step < 10000; ++step) stepper.step();
  EXPECT_LE(cache.bytes_in_use(), 3 * early);
}
// An endless stream: the table of angles follows the tokens kept, not the position.
TEST(Steady, CompactedStreamsAllocateNothing) {
  expect_steady(StreamingLLM{.sinks = 4, .recent = 60}, Dense<half>{}, 1000, 20000,
                {.positions = Positions::compacted, .rope = Rope::plain(8, 1e4, Pairing::halves)});
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// A device that fails, or has little memory: launches that are refused, memory that is exhausted, a
// device that is not there. Each is a Status, the cache stays usable or can be cleared, and nothing
// leaks.
#include <gtest/gtest.h>

#include <vector>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/ada_heads.h"
#include "kvast/policy/fastgen.h"
#include "kvast/policy/full.h"
#include "kvast/policy/h2o.h"
#include "kvast/policy/keyformer.h"
#include "kvast/policy/snapkv.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/backend.h"
#include "tests/simt/failing_device.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::TestDevice;
using Device = test::FailingDevice<TestDevice>;
static_assert(gpu::Device<Device>);
using PoolOptions = gpu::PoolOptions<Device::Stream>;

class GpuCacheFailure : public testing::Test {
 protected:
  void SetUp() override {
    test::begin_schedule(test::kSchedules[0]);
    Device::reset();
  }
  void TearDown() override {
    test::wait();
    EXPECT_EQ(Device::live, 0) << "leaked";
  }
};

constexpr Shape kOneHead{.query_heads = 2, .heads = 1, .head_dim = 8};
constexpr Shape kTwoHeads{.query_heads = 2, .heads = 2, .head_dim = 8};
constexpr Shape kTwoLayers{.layers = 2, .query_heads = 2, .heads = 2, .head_dim = 8};

/// Passes of 40 tokens with attention, and a reserve; what fails first is told.
template <class Policy, class S, Shape kShape>
class DecoderOf {
 public:
  using Cache = KVCache<Policy, OnGpu<S, Device>>;

  explicit DecoderOf(Policy policy) : cache_(kShape, policy, {}, pool_) {}

  Cache& cache() { return cache_; }

  Status pass() {
    Status status = pass(40);
    status.then([&] { return cache_.reserve(10); });
    status.then([&] { return cache_.settle(); });
    return status;
  }
  Status pass(int tokens) {
    const int length = cache_.length(0);
    auto pass = cache_.begin({.tokens = tokens, .last_of_prompt = length == 0});
    if (!pass) {
      EXPECT_FALSE(pass.status().message().empty());
      EXPECT_EQ(cache_.length(0), length);
      return pass.status();
    }
    for (int layer = 0; layer < kShape.layers; ++layer) {
      const float* rows = numbers_.data() + length % 2 + 2 * layer;
      Status status = pass->append(layer, rows, rows);
      status.then([&] { return pass->attend(layer, rows, output_.data()); });
      status.then([&] { return pass->commit(layer); });
      if (!status) return status;
    }
    return {};
  }
  /// Tokens that are kept, of all heads.
  std::vector<int> kept() {
    std::vector<int> all;
    for (int layer = 0; layer < kShape.layers; ++layer) {
      for (int head = 0; head < kShape.heads; ++head) {
        const std::vector<int> mine = *cache_.kept(0, layer, head);
        all.insert(all.end(), mine.begin(), mine.end());
      }
    }
    return all;
  }

 private:
  test::DeviceVector<float> numbers_ = test::on_device(test::Random(7).normals(40 * 4 * 8 + 4));
  test::DeviceVector<float> output_ = test::on_device(std::vector<float>(40 * 4 * 8));
  gpu::Pool<Device> pool_{{.stream = test::stream()}};
  Cache cache_;
};

struct Decoder : DecoderOf<StreamingLLM, Kivi<4>, kTwoLayers> {
  Decoder() : DecoderOf({.sinks = 1, .recent = 50}) {}
};

/// Every call that can fail fails once, and what follows is what is documented: a Status, or that
/// the pool asked for less, and nothing that is kept has changed.
template <class Policy, class S, Shape kShape>
void check_failures(Policy policy, int least_failures) {
  using Mine = DecoderOf<Policy, S, kShape>;
  Device::reset();
  std::vector<int> prompt;
  std::vector<int> evicted;
  {
    Mine decoder(policy);
    ASSERT_TRUE(decoder.pass());
    prompt = decoder.kept();
    ASSERT_TRUE(decoder.pass());
    evicted = decoder.kept();
    ASSERT_LT(evicted.size(), kShape.layers * kShape.heads * 80);
    test::wait();
  }
  int failures = 0;
  for (int at = 0;; ++at) {
    SCOPED_TRACE(at);
    Device::reset();
    Device::fails_at = at;
    bool failed = false;
    {
      Mine decoder(policy);
      for (int turn = 0; turn < 2 && !failed; ++turn) failed = !decoder.pass();
      const bool over = Device::fails_at >= 0;
      Device::fails_at = over ? -1 : Device::fails_at;
      // the device works again: after clear everything does
      if (failed) {
        ++failures;
        ASSERT_EQ(Device::fails_at, -1);
        ASSERT_TRUE(decoder.cache().clear());
        ASSERT_EQ(*decoder.cache().tokens(0, kShape.layers - 1, 0), 0);
        const Status status = decoder.pass();
        ASSERT_TRUE(status) << status.message();
        EXPECT_EQ(decoder.kept(), prompt);
      } else {
        EXPECT_EQ(decoder.kept(), evicted);
      }
      test::wait();
      if (over) break;  // there are no more calls than that
    }
    ASSERT_EQ(Device::live, 0) << "leaked";
  }
  EXPECT_GE(failures, least_failures);
}
TEST_F(GpuCacheFailure, EveryCallFailsOnce) {
  check_failures<StreamingLLM, Kivi<4>, kTwoLayers>({.sinks = 1, .recent = 50}, 40);
}
TEST_F(GpuCacheFailure, EveryCallOfScoringFailsOnce) {
  check_failures<H2O, Kivi<4>, kOneHead>({.heavy = 25, .recent = 26}, 40);
}
TEST_F(GpuCacheFailure, EveryCallOfPrunedPromptsFailsOnce) {
  check_failures<AdaHeads<SnapKV>, Dense<half>, kTwoHeads>(
      AdaHeads{SnapKV{.tokens_kept = 30, .window = 8}}, 40);
}

/// A begin that fails leaves a cache that can be asked, also for choices that it has no memory of.
TEST_F(GpuCacheFailure, ChoicesCanBeAskedAfterABeginThatFailed) {
  for (int at = 0;; ++at) {
    Device::reset();
    gpu::Pool<Device> pool({.stream = test::stream()});
    KVCache<FastGen, OnGpu<Dense<half>, Device>> cache(kOneHead, {}, {}, pool);
    Device::fails_at = at;
    const bool begun = static_cast<bool>(cache.begin({.tokens = 3, .last_of_prompt = true}));
    Device::fails_at = -1;
    auto choice = cache.choice(0, 0, 0);
    ASSERT_TRUE(choice) << at;
    ASSERT_EQ(choice->rule, FastGen::Choice{}.rule);
    test::wait();
    if (begun) break;
  }
}

/// An engine that shows no attention to a policy that needs it is told at the first commit.
TEST_F(GpuCacheFailure, APolicyThatSawNoAttentionIsNotCommitted) {
  DecoderOf<H2O, Kivi<4>, kOneHead> decoder({.heavy = 15, .recent = 16});
  const auto numbers = test::on_device(std::vector<float>(8, 1.0F));
  auto pass = decoder.cache().begin();
  ASSERT_TRUE(pass);
  ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
  test::expect_refused([&] { (void)pass->commit(); },
                       {"commit", "the last call was append", "needed is attend or observe"});
}

/// A step neither allocates nor waits, whatever policy and storage, once it is warm.
template <class Policy, class S>
void check_steps(Policy policy) {
  Device::reset();
  DecoderOf<Policy, S, kOneHead> decoder(policy);
  ASSERT_TRUE(decoder.pass(40));
  for (int step = 0; step < 3; ++step) ASSERT_TRUE(decoder.pass(1));
  Device::halts = 0;
  for (int step = 0; step < 40; ++step) ASSERT_TRUE(decoder.pass(1));
  EXPECT_EQ(Device::halts, 0);
  test::wait();
}
TEST_F(GpuCacheFailure, AStepNeitherAllocatesNorWaits) {
  check_steps<StreamingLLM, Kivi<4>>({.sinks = 1, .recent = 30});
  check_steps<H2O, Kivi<4>>({.heavy = 15, .recent = 16});
  check_steps<Keyformer, Dense<half>>({.tokens_kept = 20, .recent = 5});
}

/// What fails after a pass began tears the cache, and it says so until it is cleared.
TEST_F(GpuCacheFailure, ATornCacheSaysSo) {
  Decoder decoder;
  ASSERT_TRUE(decoder.pass());
  {
    auto pass = decoder.cache().begin();
    ASSERT_TRUE(pass);
    Device::fails_at = 0;
    const std::vector<float> nothing(64);
    ASSERT_FALSE(pass->append(0, nothing.data(), nothing.data()));
  }
  EXPECT_EQ(decoder.cache().begin().status().code(), StatusCode::device_failed);
  EXPECT_EQ(decoder.cache().reserve(1).code(), StatusCode::device_failed);
  ASSERT_TRUE(decoder.cache().clear());
  EXPECT_TRUE(decoder.pass());
}

/// The same where a dropped pass could not be taken back, which nobody is told at that time.
TEST_F(GpuCacheFailure, ADropThatFailsTearsTheCache) {
  Decoder decoder;
  ASSERT_TRUE(decoder.pass());
  {
    const auto numbers = test::on_device(std::vector<float>(64, 1.0F));
    auto pass = decoder.cache().begin();
    ASSERT_TRUE(pass);
    ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
    test::wait();
    Device::fails_at = 0;
  }
  EXPECT_EQ(decoder.cache().begin().status().code(), StatusCode::device_failed);
  ASSERT_TRUE(decoder.cache().clear());
  EXPECT_TRUE(decoder.pass());
}

/// A device that is not there: nothing works from the beginning.
TEST_F(GpuCacheFailure, AMissingDeviceIsAStatus) {
  Device::missing = true;
  {
    gpu::Pool<Device> pool;
    KVCache<Full, OnGpu<Dense<half>, Device>> cache(
        Shape{.query_heads = 1, .heads = 1, .head_dim = 8}, {}, {}, pool);
    for (int turn = 0; turn < 2; ++turn) {
      const auto pass = cache.begin();
      ASSERT_FALSE(pass);
      EXPECT_EQ(pass.status().code(), StatusCode::device_failed);
    }
    EXPECT_TRUE(cache.clear());
    EXPECT_EQ(*cache.tokens(0, 0, 0), 0);
    EXPECT_TRUE(cache.kept(0, 0, 0)->empty());
  }
  Device::reset();
}

/// One dense head of 64 features, in a pool with little memory.
class Little {
 public:
  using Cache = KVCache<Full, OnGpu<Dense<float>, Device>>;
  explicit Little(const PoolOptions& options) : pool_(options) {}

  gpu::Pool<Device>& pool() { return pool_; }
  Cache& cache() { return cache_; }
  Status append(Cache::Pass& pass) { return pass.append(0, numbers_.data(), numbers_.data()); }
  Status attend(Cache::Pass& pass) { return pass.attend(0, numbers_.data(), output_.data()); }
  void pass(int tokens) {
    auto pass = cache_.begin({.tokens = tokens});
    ASSERT_TRUE(pass) << pass.status().message();
    ASSERT_TRUE(append(*pass));
    ASSERT_TRUE(pass->commit());
  }

 private:
  test::DeviceVector<float> numbers_ = test::on_device(std::vector<float>(1000 * 64, 1.0F));
  test::DeviceVector<float> output_ = test::on_device(std::vector<float>(1000 * 64));
  gpu::Pool<Device> pool_;
  Cache cache_{Shape{.query_heads = 1, .heads = 1, .head_dim = 64}, {}, {}, pool_};
};

/// Another allocator underneath, which has little.
TEST_F(GpuCacheFailure, TheCallersAllocatorMayBeEmpty) {
  struct Memory {
    std::size_t left = 300000;
    int live = 0;
  } memory;
  PoolOptions options{.stream = test::stream()};
  options.allocator.context = &memory;
  options.allocator.allocate = [](void* context, std::size_t bytes,
                                  Device::Stream stream) -> void* {
    auto& mine = *static_cast<Memory*>(context);
    if (bytes > mine.left) return nullptr;
    mine.left -= bytes;
    ++mine.live;
    void* made = nullptr;
    return TestDevice::allocate(made, bytes, stream) ? made : nullptr;
  };
  options.allocator.release = [](void* context, void* made, std::size_t bytes,
                                 Device::Stream stream) {
    static_cast<Memory*>(context)->left += bytes;
    --static_cast<Memory*>(context)->live;
    TestDevice::release(made, stream);
  };
  {
    Little little(options);
    ASSERT_NO_FATAL_FAILURE(little.pass(100));
    const auto large = little.cache().begin({.tokens = 1000});
    ASSERT_FALSE(large);
    EXPECT_EQ(large.status().code(), StatusCode::pool_exhausted);
    EXPECT_EQ(*little.cache().tokens(0, 0, 0), 100);
  }
  EXPECT_EQ(memory.live, 0);
}

TEST_F(GpuCacheFailure, ABeginThatFailsKeepsNoMemory) {
  Little little({.byte_limit = std::size_t{1} << 20U, .stream = test::stream()});
  ASSERT_NO_FATAL_FAILURE(little.pass(100));
  const std::size_t before = little.pool().bytes_held();
  EXPECT_FALSE(little.cache().begin({.tokens = 3000}));
  EXPECT_EQ(little.pool().bytes_held(), before);
  EXPECT_FALSE(little.cache().reserve(3000));
  EXPECT_EQ(little.pool().bytes_held(), before);
  ASSERT_NO_FATAL_FAILURE(little.pass(100));
}

/// The pool doubles while it can; near its limit what is missing is enough.
TEST_F(GpuCacheFailure, APoolFillsItsLimit) {
  constexpr std::size_t kLimit = std::size_t{1} << 20U;
  Little little({.byte_limit = kLimit, .stream = test::stream()});
  while (auto pass = little.cache().begin({.tokens = 32})) {
    ASSERT_TRUE(little.append(*pass));
    ASSERT_TRUE(pass->commit());
  }
  // 16 KiB for 32 tokens, and their records
  EXPECT_GT(little.pool().bytes_held(), kLimit - (std::size_t{1} << 16U));
}

TEST_F(GpuCacheFailure, AttendWithoutMemoryLeavesThePassOpen) {
  const auto held = [](std::size_t limit) {
    Little little({.byte_limit = limit, .stream = test::stream()});
    auto pass = little.cache().begin({.tokens = 100});
    EXPECT_TRUE(pass);
    return little.pool().bytes_held();
  };
  Little little({.byte_limit = held(std::size_t{1} << 30U) + 64, .stream = test::stream()});
  {
    auto pass = little.cache().begin({.tokens = 100});
    ASSERT_TRUE(pass) << pass.status().message();
    ASSERT_TRUE(little.append(*pass));
    const Status status = little.attend(*pass);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.code(), StatusCode::pool_exhausted);
    ASSERT_TRUE(pass->commit());
  }
  EXPECT_EQ(*little.cache().tokens(0, 0, 0), 100);
}

}  // namespace
}  // namespace kvast

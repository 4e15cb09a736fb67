// SPDX-License-Identifier: Apache-2.0
// The model's kernels on a device, around a cache that is exact, against the CPU's.
#include "examples/decoder/gpu/device_llama.cuh"

#include <gtest/gtest.h>

#include <cmath>

#include "examples/decoder/llama.h"
#include "tests/examples/decoder/naive_cache.h"
#include "tests/examples/decoder/tiny_model.h"
#include "tests/simt/backend.h"
#include "tests/simt/failing_device.h"

namespace kvast::decoder {
namespace {

using test::TestDevice;
using Broken = test::FailingDevice<TestDevice>;

const std::vector<int> kTokens{3, 49, 7, 7, 0, 21, 8, 30, 11, 2, 48};

double worst(const std::vector<float>& one, const std::vector<float>& other) {
  EXPECT_EQ(one.size(), other.size());
  double most = 0;
  for (std::size_t at = 0; at < one.size(); ++at)
    most = std::max(most, std::fabs(static_cast<double>(one[at]) - static_cast<double>(other[at])));
  return most;
}

/// Logits of the tiny model in any order of threads, and on the CPU.
void check(const TinyModel& tiny, double tolerance) {
  const std::vector<std::byte> file = tiny.writer.finish();
  const Gguf gguf(file);
  Llama host(gguf, serial(), Precision::exact);
  const std::vector<int> passes{9, 1, 1};
  const std::vector<float> expected = run_passes(host, kTokens, passes);
  std::vector<float> first;
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    DeviceLlama<TestDevice> device(LlamaWeights(gguf), test::stream());
    const std::vector<float> actual = run_passes(device, kTokens, passes);
    EXPECT_LT(worst(actual, expected), tolerance);
    if (first.empty()) first = actual;
    EXPECT_EQ(actual, first) << "depends on the order of threads";
  }
}

TEST(DeviceLlama, LogitsAreTheCpus) {
  check(TinyModel(TensorType::f16), 1e-5);
  check(TinyModel(TensorType::q8_0), 2e-3);  // its numbers are rounded to f16
}
TEST(DeviceLlama, OddSizes) {
  check(TinyModel(TensorType::f16, {.embedding = 37,
                                    .feed_forward = 51,
                                    .query_heads = 3,
                                    .heads = 1,
                                    .head_dim = 24,
                                    .tied = false}),
        1e-5);
}

TEST(DeviceLlama, RowsThatWereAskedFor) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<std::byte> file = TinyModel(TensorType::f16).writer.finish();
  const Gguf gguf(file);
  Llama host(gguf, serial(), Precision::exact);
  DeviceLlama<TestDevice> device(LlamaWeights(gguf), test::stream());
  const std::vector<int> rows{1, 6, 10};
  const auto all = [&](auto& model) {
    NaiveCache cache(model.config().shape());
    EXPECT_TRUE(model.forward(cache, kTokens, 0, NaivePass{}, rows));
    std::vector<float> out;
    for (int index = 0; index < 3; ++index) {
      const auto logits = model.logits(index);
      out.insert(out.end(), logits.begin(), logits.end());
    }
    EXPECT_THROW((void)model.logits(3), std::out_of_range);
    EXPECT_TRUE(model.forward(cache, kTokens, 11, NaivePass{}, {}));
    EXPECT_THROW((void)model.logits(0), std::out_of_range);
    EXPECT_THROW((void)model.forward(cache, std::vector<int>{50}, 22, NaivePass{}),
                 std::out_of_range);
    return out;
  };
  EXPECT_LT(worst(all(device), all(host)), 1e-5);
}

/// More rows than tokens: some are asked for twice.
TEST(DeviceLlama, RowsThatWereAskedForTwice) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<std::byte> file = TinyModel(TensorType::f16).writer.finish();
  const Gguf gguf(file);
  DeviceLlama<TestDevice> device(LlamaWeights(gguf), test::stream());
  NaiveCache cache(device.config().shape());
  ASSERT_TRUE(device.forward(cache, std::vector<int>{3, 5}, 0, NaivePass{},
                             std::vector<int>{1, 0, 1, 1, 0, 1}));
  const auto once = device.logits(0);
  for (const int again : {2, 3, 5}) {
    const auto logits = device.logits(again);
    EXPECT_TRUE(std::equal(once.begin(), once.end(), logits.begin()));
  }
  EXPECT_TRUE(
      std::equal(device.logits(1).begin(), device.logits(1).end(), device.logits(4).begin()));
}

struct UnrotatedCache : NaiveCache {
  using NaiveCache::NaiveCache;
  bool wants_unrotated() const { return true; }
};

TEST(DeviceLlama, LeavesTheRotationToACacheThatAsksForIt) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<std::byte> file = TinyModel(TensorType::f16).writer.finish();
  const Gguf gguf(file);
  DeviceLlama<TestDevice> device(LlamaWeights(gguf), test::stream());
  Llama host(gguf, serial(), Precision::exact);
  UnrotatedCache on_device(device.config().shape());
  UnrotatedCache on_host(host.config().shape());
  ASSERT_TRUE(device.forward(on_device, kTokens, 40, NaivePass{}));
  ASSERT_TRUE(host.forward(on_host, kTokens, 40, NaivePass{}));
  EXPECT_LT(worst(on_device.keys(1), on_host.keys(1)), 1e-5);
}

/// Every call to the device fails once: what holds memory gives it back, and nothing crashes.
TEST(DeviceLlama, FailuresAreTold) {
  test::begin_schedule(test::kSchedules[0]);
  const std::vector<std::byte> file = TinyModel(TensorType::f16, {.layers = 1}).writer.finish();
  const Gguf gguf(file);
  const LlamaWeights weights(gguf);
  Broken::missing = true;
  EXPECT_THROW(DeviceLlama<Broken>(weights, test::stream()), DeviceError);
  Broken::reset();
  int failed = 0;
  for (int call = 0;; ++call) {
    Broken::fails_at = call;
    bool told = false;
    try {
      DeviceLlama<Broken> device(weights, test::stream());
      NaiveCache cache(weights.config.shape());
      told = !device.forward(cache, kTokens, 0, NaivePass{});
      if (told) {
        EXPECT_EQ(cache.length(), 0);
      }
    } catch (const DeviceError&) {
      told = true;
    }
    EXPECT_EQ(Broken::live, 0);
    if (!told) break;
    ++failed;
  }
  EXPECT_GT(failed, 40);
  Broken::reset();
}

}  // namespace
}  // namespace kvast::decoder

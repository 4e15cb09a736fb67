// SPDX-License-Identifier: Apache-2.0
// append: elements, strides, numbers that are none, and keys that are turned by their slot.
#include "kvast/gpu/append.cuh"

#include <gtest/gtest.h>

#include <cmath>

#include "kvast/gpu/kv_cache.cuh"
#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/backend.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

using test::DeviceVector;
using test::Random;
using test::TestDevice;

TEST(Append, NumbersThatAreNoneAreCountedAndStoredAsZero) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 1, .heads = 1, .head_dim = 8};
  gpu::Pool<TestDevice> pool({.stream = test::stream()});
  KVCache<Full, OnGpu<Dense<half>, TestDevice>> cache(shape, {}, {}, pool);
  const DeviceVector<float> keys = {1, NAN, 3, INFINITY, 5, 70000, 7, 8};
  const DeviceVector<float> values(8, 2.0F);
  auto pass = cache.begin();
  ASSERT_TRUE(pass);
  ASSERT_TRUE(pass->append(0, keys.data(), values.data()));
  ASSERT_TRUE(pass->commit(0));
  test::wait();
  EXPECT_EQ(cache.counters().refused, 3);
  DeviceVector<float> got(8);
  ASSERT_TRUE(cache.export_dense(0, 0, 1, got.data(), gpu::OutputTensor{}));
  test::wait();
  EXPECT_EQ(got, (DeviceVector<float>{1, 0, 3, 0, 5, 0, 7, 8}));
}

TEST(Append, TakesHalvesAndStrides) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 2, .heads = 2, .head_dim = 8};
  gpu::Pool<TestDevice> pool({.stream = test::stream()});
  KVCache<Full, OnGpu<Dense<half>, TestDevice>> cache(shape, {}, {}, pool, {.sequences = 2});
  Random random(9);
  DeviceVector<bfloat16> keys(200);
  DeviceVector<half> values(200);
  for (auto& number : keys) number = BF16::element(static_cast<float>(random.normal()));
  for (auto& number : values) number = to_half(static_cast<float>(random.normal()));
  auto pass = cache.begin({.tokens = 3});
  ASSERT_TRUE(pass);
  // head before row, and room between rows
  ASSERT_TRUE(pass->append(0, {keys.data(), 10, 100}, {values.data(), 20}));
  ASSERT_TRUE(pass->commit(0));
  DeviceVector<half> got_keys(3 * 2 * 8);
  DeviceVector<bfloat16> got_values(3 * 2 * 8);
  ASSERT_TRUE(cache.export_dense(1, 0, 3, got_keys.data(), got_values.data()));
  test::wait();
  for (int row = 0; row < 3; ++row) {
    for (int head = 0; head < 2; ++head) {
      for (int dim = 0; dim < 8; ++dim) {
        const auto at = static_cast<std::size_t>((row * 2 + head) * 8 + dim);
        const bfloat16 key = keys[static_cast<std::size_t>((3 + row) * 10 + head * 100 + dim)];
        ASSERT_EQ(got_keys[at], to_half(BF16::number(key)));
        const half value = values[static_cast<std::size_t>((3 + row) * 20 + head * 8 + dim)];
        ASSERT_EQ(got_values[at].bits, BF16::element(to_float(value)).bits);
      }
    }
  }
}

TEST(Append, CompactedKeysAreTurnedByTheirSlot) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 1, .heads = 1, .head_dim = 16};
  for (const Pairing pairing : {Pairing::halves, Pairing::interleaved}) {
    Rope rope = Rope::plain(12, 100.0, pairing);
    rope.scale = 1.25F;
    RopeTable table(rope);
    table.grow(kBlockTokens);
    gpu::Pool<TestDevice> pool({.stream = test::stream()});
    KVCache<StreamingLLM, OnGpu<Dense<float>, TestDevice>> cache(
        shape, {.sinks = 2, .recent = 34}, {}, pool,
        {.positions = Positions::compacted, .rope = rope});
    Random random(3);
    const auto keys = test::on_device(random.normals(70 * 16));
    auto pass = cache.begin({.tokens = 70});
    ASSERT_TRUE(pass);
    ASSERT_TRUE(pass->append(0, keys.data(), keys.data()));
    ASSERT_TRUE(pass->commit(0));
    ASSERT_EQ(*cache.tokens(0, 0, 0), 36);
    DeviceVector<float> got(36 * 16);
    ASSERT_TRUE(cache.export_dense(0, 0, 36, got.data(), gpu::OutputTensor{}));
    test::wait();
    for (int row = 0; row < 36; ++row) {
      const int position = row < 2 ? row : 34 + row;
      std::vector<float> wanted(keys.begin() + position * 16, keys.begin() + position * 16 + 16);
      table.rotate(wanted.data(), position % kBlockTokens);
      for (std::size_t dim = 0; dim < 16; ++dim)
        ASSERT_EQ(got[static_cast<std::size_t>(row) * 16 + dim], wanted[dim]) << row << ' ' << dim;
    }
  }
}

}  // namespace
}  // namespace kvast

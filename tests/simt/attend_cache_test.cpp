// SPDX-License-Identifier: Apache-2.0
// Attention through KVCache<Policy, OnGpu<S>>: passes of a batch against the reference in double.
#include <gtest/gtest.h>

#include <vector>

#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/attend_twins.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::AttendTwins;
using test::DeviceVector;
using test::Random;
using test::ReferenceLayer;
using test::ReferenceRules;
using test::TestDevice;

TEST(GpuAttend, FullOverPromptsAndSteps) {
  const Shape shape{.query_heads = 8, .heads = 2, .head_dim = 64, .value_dim = 40};
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    AttendTwins<Full, Dense<half>> twins(shape, {}, {.sequences = 3});
    EXPECT_LE(twins.pass({33, 5, 0}), 2e-3);
    EXPECT_LE(twins.pass({1, 31, 1}), 2e-3);
    for (int step = 0; step < 3; ++step) EXPECT_LE(twins.pass({1, step % 2, 1}), 2e-3);
  }
}

TEST(GpuAttend, AfterEvictionHolesAreFilledAndPositionsStay) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 3, .heads = 1, .head_dim = 72};
  AttendTwins<StreamingLLM, Dense<half>> twins(shape, {.sinks = 3, .recent = 40}, {.sequences = 2});
  ReferenceRules rules;
  rules.window = 30;
  for (int step = 0; step < 8; ++step) {
    EXPECT_LE(twins.pass({11, 7}), 2e-3);
    EXPECT_LE(twins.pass({1, 1}, {.window = 30}, rules), 2e-3);
  }
}

TEST(GpuAttend, CodesAreReadAsTheyAre) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 64, .value_dim = 40};
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    AttendTwins<Full, Kivi<8, 4>> twins(shape, {}, {.sequences = 3}, {.residual = 32});
    EXPECT_LE(twins.pass({70, 5, 0}), 2e-3);
    EXPECT_LE(twins.pass({1, 95, 1}), 2e-3);
    for (int step = 0; step < 3; ++step) EXPECT_LE(twins.pass({40, step % 2, 1}), 2e-3);
  }
  test::begin_schedule(test::kSchedules[0]);
  AttendTwins<Full, Int8> eight(shape, {}, {.sequences = 2});
  AttendTwins<Full, Float8<E4M3>> floats(shape, {}, {.sequences = 2}, {.keep = {.tokens = 3}});
  for (int step = 0; step < 3; ++step) {
    EXPECT_LE(eight.pass({40, 33}), 2e-3);
    EXPECT_LE(floats.pass({40, 33}), 2e-3);
  }
}

TEST(GpuAttend, CodesOfWhatEvictionLeft) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 3, .heads = 1, .head_dim = 72};
  AttendTwins<StreamingLLM, Int4> twins(shape, {.sinks = 3, .recent = 100}, {.sequences = 2});
  ReferenceRules rules;
  rules.window = 80;
  for (int step = 0; step < 8; ++step) {
    EXPECT_LE(twins.pass({41, 27}), 2e-3);
    EXPECT_LE(twins.pass({1, 1}, {.window = 80}, rules), 2e-3);
  }
}

TEST(GpuAttend, CompactedPositionsSlideWithTheWindow) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 2, .heads = 1, .head_dim = 64};
  const Rope rope = Rope::plain(64, 1e4, Pairing::interleaved);
  test::ReferenceRope reference{.interleaved = true};
  for (const float frequency : rope.inverse_frequencies)
    reference.frequencies.push_back(static_cast<double>(frequency));
  ReferenceRules rules;
  rules.rope = &reference;
  AttendTwins<StreamingLLM, Dense<float>> twins(
      shape, {.sinks = 2, .recent = 37},
      {.sequences = 2, .positions = Positions::compacted, .rope = rope});
  EXPECT_LE(twins.pass({70, 3}, {}, rules), 1e-5);
  for (int step = 0; step < 40; ++step) EXPECT_LE(twins.pass({1, 2}, {}, rules), 1e-5);
}

TEST(AttendSplit, GivesEveryWorkerAUnitAndStoresNoMoreThanItMust) {
  for (const int tables : {1, 8, 500}) {
    for (const int rows : {1, 8, 9, 40, 5000}) {
      const auto split = gpu::AttendSplit::of(tables, rows, 8, {.workers = 264});
      ASSERT_GE(split.tiles * 8, rows);
      ASSERT_GE(split.items, tables);
      if (split.tiles == 1) {
        ASSERT_EQ(split.rules.workers, 264);
      }
      const bool enough = split.tiles > 1 && tables * split.tiles >= 264;
      ASSERT_EQ(split.stored == 0, enough);
      if (enough) {  // then heads have one part each, however long
        const gpu::SplitChoices choices{.all = std::int64_t{1} << 30, .longest = 1 << 20};
        ASSERT_EQ(gpu::parts_of(1 << 20, choices.per_part(0, split.rules)), 1);
      } else {
        ASSERT_LE(split.stored, 5 * std::max(tables * split.tiles, 264));
      }
    }
  }
}

TEST(GpuAttend, AllocatesNothingOnceItIsWarm) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 4, .heads = 1, .head_dim = 64};
  AttendTwins<Full, Dense<half>> twins(shape, {}, {.sequences = 1});
  EXPECT_LE(twins.pass({150}), 2e-3);
  EXPECT_LE(twins.pass({1}), 2e-3);
  const std::size_t held = twins.pool().bytes_held();
  for (int step = 0; step < 8; ++step) EXPECT_LE(twins.pass({1}), 2e-3);
  EXPECT_EQ(twins.pool().bytes_held(), held);
}

TEST(GpuAttend, RefusesByName) {
  test::begin_schedule(test::kSchedules[0]);
  gpu::Pool<TestDevice> pool({.stream = test::stream()});
  const DeviceVector<float> numbers(4096, 0.5F);
  DeviceVector<float> output(4096);
  {
    KVCache<Full, OnGpu<Dense<half>, TestDevice>> cache(
        Shape{.query_heads = 1, .heads = 1, .head_dim = 264}, {}, {}, pool);
    auto pass = cache.begin();
    ASSERT_TRUE(pass);
    test::expect_refused([&] { (void)pass->attend(0, numbers.data(), output.data()); },
                         {"out of order"});
    ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
    test::expect_refused([&] { (void)pass->attend(0, numbers.data(), output.data()); }, {"264"});
  }
  KVCache<Full, OnGpu<Kivi<4, 3>, TestDevice>> cache(
      Shape{.query_heads = 1, .heads = 1, .head_dim = 64}, {}, {}, pool);
  auto pass = cache.begin();
  ASSERT_TRUE(pass);
  ASSERT_TRUE(pass->append(0, numbers.data(), numbers.data()));
  test::expect_refused([&] { (void)pass->attend(0, numbers.data(), output.data()); },
                       {"int4", "int3", "export_dense"});
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// Rotated codes meet rotated queries: every format, group and width, against the reference in
// double, which knows nothing of rotations.
#include <gtest/gtest.h>

#include <vector>

#include "kvast/policy/full.h"
#include "kvast/policy/streaming_llm.h"
#include "tests/simt/attend_twins.h"

namespace kvast {
namespace {

using test::AttendTwins;

template <class S>
Rotated<S> rotated() {
  Rotated<S> storage;
  if constexpr (requires { storage.residual; }) storage.residual = 32;
  return storage;
}

template <class S>
class GpuRotated : public testing::Test {};
using Kinds = testing::Types<Int8, Kivi<4>, Kivi<2>, Kivi<8, 4>, Float8<E4M3>>;
TYPED_TEST_SUITE(GpuRotated, Kinds);

TYPED_TEST(GpuRotated, GroupsAndWidths) {
  test::begin_schedule(test::kSchedules[0]);
  for (const int dim : {64, 128}) {
    for (const int group : {1, 3, 4, 8}) {
      const Shape shape{.query_heads = group, .heads = 1, .head_dim = dim};
      AttendTwins<Full, Rotated<TypeParam>> twins(shape, {}, {}, rotated<TypeParam>());
      // 63, 64, 65, 96, 97 tokens and more; in the first pass nothing is sealed yet
      for (const int tokens : {63, 1, 1, 31, 1, 70, 1})
        EXPECT_LE(twins.pass({tokens}), 2e-3)
            << dim << ", group " << group << ", " << twins.cache().length(0) << " tokens";
    }
  }
}

TEST(GpuRotatedOrders, GiveTheSame) {
  for (const test::Schedule schedule : test::kSchedules) {
    test::begin_schedule(schedule);
    const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 64, .value_dim = 40};
    AttendTwins<Full, Rotated<Kivi<4>>> twins(shape, {}, {.sequences = 2}, rotated<Kivi<4>>());
    EXPECT_LE(twins.pass({70, 5}), 2e-3);
    EXPECT_LE(twins.pass({1, 95}), 2e-3);
    EXPECT_LE(twins.pass({1, 1}), 2e-3);
  }
}

TEST(GpuRotatedOptions, HolesWindowsAndOddWidths) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 3, .heads = 1, .head_dim = 96};
  AttendTwins<StreamingLLM, Rotated<Kivi<4>>> twins(shape, {.sinks = 3, .recent = 100},
                                                    {.sequences = 2}, rotated<Kivi<4>>());
  test::ReferenceRules rules;
  rules.window = 80;
  rules.softcap = 20.0;
  for (int step = 0; step < 4; ++step) {
    EXPECT_LE(twins.pass({41, 27}), 2e-3);
    EXPECT_LE(twins.pass({1, 1}, {.softcap = 20.0F, .window = 80}, rules), 2e-3);
  }
}

/// Rotated queries are rounded, which shifts the logits of keys that are far from zero alike: the
/// softmax does not see it, log-sum-exps and learned sinks do, by up to half's rounding.
TEST(GpuRotatedOptions, KeysFarFromZeroShiftTheSum) {
  test::begin_schedule(test::kSchedules[0]);
  const Shape shape{.query_heads = 4, .heads = 1, .head_dim = 128};
  AttendTwins<Full, Rotated<Kivi<4>>> twins(shape, {}, {}, rotated<Kivi<4>>());
  twins.key_offset = 100.0F;
  test::DeviceVector<float> sums(4 * 70);
  twins.pass({70});  // what waits is rotated and rounded as well, which the reference learns after
  EXPECT_LE(twins.pass({1}, {.log_sum_exp = sums.data()}), 2e-3);
  EXPECT_LE(twins.sum_error, 1.0 / 2048);
  EXPECT_GT(twins.sum_error, 0.0);
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// An engine that gives no weights: the same codes, and policies that do without.
#include "kvast/storage/weightless.h"

#include <gtest/gtest.h>

#include <vector>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

const Shape kShape{.query_heads = 2, .heads = 1, .head_dim = 32};

/// What 100 tokens leave, of a prompt and of steps that never call attend.
template <class S>
std::vector<float> values_kept(S storage) {
  BlockPool pool;
  KVCache<StreamingLLM, S> cache(kShape, {.sinks = 4, .recent = 60}, storage, pool);
  test::Random random(3);
  for (const int count : {70, 1, 1, 28}) {
    const auto numbers = random.normals(static_cast<std::size_t>(count) * 32);
    auto pass = cache.begin({.tokens = count, .last_of_prompt = count == 70});
    pass->append(0, numbers.data(), numbers.data());
    pass->commit(0);
  }
  EXPECT_EQ(cache.tokens(0, 0), 64);
  std::vector<float> values(64 * 32);
  cache.export_dense(0, {}, values.data());
  return values;
}

TEST(Weightless, KeepsWhatTheStorageKeeps) {
  EXPECT_EQ(values_kept(Weightless<Kivi<4>>{{.residual = 0}}), values_kept(Kivi<4>{.residual = 0}));
  EXPECT_EQ(values_kept(Rotated<Weightless<Int8>>{}), values_kept(Rotated<Int8>{}));
}

static_assert(detail::has_its_weights<L2Norm, Weightless<Int8>>());
static_assert(detail::has_its_weights<H2O, Int8>());
static_assert(!detail::has_its_weights<H2O, Rotated<Weightless<Int8>>>());
static_assert(!detail::has_its_weights<PerLayer<Full, TOVA>, Weightless<Dense<half>>>());

}  // namespace
}  // namespace kvast

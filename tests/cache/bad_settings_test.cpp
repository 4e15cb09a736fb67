// SPDX-License-Identifier: Apache-2.0
// Settings that cannot be are refused where the cache is made, by name and value.
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

using test::expect_refused;

constexpr Shape kShape{.query_heads = 4, .heads = 2, .head_dim = 16};

template <class Policy>
void expect_no_cache(Policy policy, const std::vector<std::string>& parts,
                     const CacheOptions& options = {}, const Shape& shape = kShape,
                     const AnyStorage& storage = Dense<float>{}) {
  BlockPool pool;
  expect_refused([&] { KVCache<Policy, AnyStorage>(shape, policy, storage, pool, options); },
                 parts);
  EXPECT_EQ(pool.bytes_in_use(), 0U);
}

TEST(BadSettings, BudgetsBelowWhatIsPinned) {
  expect_no_cache(SnapKV{.tokens_kept = 31, .window = 32},
                  {"SnapKV.tokens_kept is 31", "window, 32"});
  expect_no_cache(TOVA{.tokens_kept = 4, .recent = 5}, {"TOVA.tokens_kept is 4", "recent, 5"});
  expect_no_cache(L2Norm{.tokens_kept = 4, .recent = 5}, {"L2Norm.tokens_kept is 4", "5"});
  expect_no_cache(H2O{.heavy = 0, .recent = 0}, {"budget of layer 0 is 0", "at least 1"});
}

TEST(BadSettings, BatchesThatLeaveNothing) {
  expect_no_cache(H2O{.heavy = 2, .recent = 2, .when = When::full(5)},
                  {"when.batch is 5", "budget, 4"});
  expect_no_cache(H2O{.when = When::full(0)}, {"when.batch is 0", "at least 1"});
}

TEST(BadSettings, Shapes) {
  expect_no_cache(Full{}, {"shape.head_dim is 20"}, {}, {.head_dim = 20});
  expect_no_cache(Full{}, {"shape.query_heads is 3", "2"}, {},
                  {.query_heads = 3, .heads = 2, .head_dim = 16});
}

TEST(BadSettings, RopeAndPositionsBelongTogether) {
  const Rope rope = Rope::plain(16, 1e4, Pairing::halves);
  expect_no_cache(Full{}, {"options.rope", "compacted"}, {.positions = Positions::compacted});
  expect_no_cache(Full{}, {"options.rope", "compacted"}, {.rope = rope});
  const Rope wide = Rope::plain(32, 1e4, Pairing::halves);
  expect_no_cache(Full{}, {"rope.width is 32", "head_dim = 16"},
                  {.positions = Positions::compacted, .rope = wide});
  expect_no_cache(Full{}, {"Positions::compacted needs a storage that keeps keys"},
                  {.positions = Positions::compacted, .rope = rope}, kShape, External{});
}

TEST(BadSettings, ReducesThatDoNotExist) {
  expect_no_cache(H2O{}, {"options.reduce is 3"}, {.reduce = static_cast<Reduce>(3)});
}

TEST(BadSettings, ErrorsNameTheCallersFile) {
  BlockPool pool;
  using Cache = KVCache<SnapKV, Dense<float>>;
  expect_refused([&] { Cache(kShape, SnapKV{.window = 0}, {}, pool); },
                 {"SnapKV.window is 0", "bad_settings_test.cpp"});
}

}  // namespace
}  // namespace kvast

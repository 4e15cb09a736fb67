// SPDX-License-Identifier: Apache-2.0
// rank: tokens in order of position, however far apart positions are and wherever tokens lie.
#include "kvast/host/rank.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kvast/kv_cache.h"
#include "kvast/policy/l2_norm.h"
#include "kvast/storage/dense.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

/// What a head of 40 tokens keeps of 200 that arrive one by one, `gap` positions apart: evicted
/// tokens' slots are taken by later ones.
std::vector<int> kept_in_holes(int gap) {
  BlockPool pool;
  KVCache<L2Norm, Dense<float>> cache(Shape{.head_dim = 8}, {.tokens_kept = 40, .skip = {}}, {},
                                      pool);
  test::Random random(3);
  for (int step = 0; step < 200; ++step) {
    const auto numbers = random.normals(8);
    const int position = step * gap;
    auto pass = cache.begin({.positions = std::span(&position, 1)});
    pass->append(0, std::span(numbers), std::span(numbers));
    pass->commit(0);
  }
  std::vector<int> kept = cache.kept(0, 0);
  for (int& position : kept) position /= gap;
  return kept;
}

TEST(Order, IsOfPositionsHoweverFarApart) {
  const std::vector<int> kept = kept_in_holes(1);
  EXPECT_EQ(kept.size(), 40U);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end()));
  for (const int gap : {2, 3, 4, 1000, 1000000}) EXPECT_EQ(kept_in_holes(gap), kept) << gap;
}

TEST(Order, OfNoTokensIsEmpty) {
  std::vector<Place> order{{1, 2}};
  order_tokens(Head{}, order);
  EXPECT_TRUE(order.empty());
}

}  // namespace
}  // namespace kvast

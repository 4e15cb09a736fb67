// SPDX-License-Identifier: Apache-2.0
// Weights that are no numbers, in some query heads of a group.
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kvast/kvast.h"

namespace kvast {
namespace {

// "any" over a group: one head's NaN is the group's, whichever head has it.
TEST(NaN, OfAnyQueryHeadIsTheGroups) {
  for (const int bad : {0, 1, 2}) {
    BlockPool pool;
    KVCache<H2O, External> cache(Shape{.query_heads = 3, .head_dim = 8},
                                 {.heavy = 8, .recent = 2, .reduce = Reduce::max}, {}, pool);
    auto pass = cache.begin({.tokens = 20, .last_of_prompt = true});
    pass->append(0);
    std::vector<float> weights(20 * 3 * 20, 0.01F);
    for (std::size_t row = 0; row < 20; ++row) {
      for (std::size_t slot = 0; slot < 20; slot += 2)
        weights[(row * 3 + static_cast<std::size_t>(bad)) * 20 + slot] =
            std::numeric_limits<float>::quiet_NaN();
    }
    pass->observe(0, {weights.data(), 60, 20});
    pass->commit(0);
    EXPECT_EQ(cache.kept(0, 0), (std::vector<int>{1, 3, 5, 7, 9, 11, 13, 15, 18, 19})) << bad;
  }
}

}  // namespace
}  // namespace kvast

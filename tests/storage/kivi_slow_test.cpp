// SPDX-License-Identifier: Apache-2.0
// Kivi<4> over a long H2O history: tokens are encoded again at most once on average.
#include <gtest/gtest.h>

#include "tests/support/attend_case.h"

namespace kvast {
namespace {

TEST(Kivi4Long, ReencodingsPerTokenOverTenThousandSteps) {
  const Shape shape{.query_heads = 4, .heads = 2, .head_dim = 32};
  test::Duel<H2O, Kivi<4>> duel(shape, {.heavy = 400, .recent = 112, .by_lifetime = true},
                                {.residual = 64});
  duel.run({.tokens = 1000, .last_of_prompt = true}, {}, {}, 0);
  for (int step = 0; step < 10000; ++step) duel.run({}, {}, {}, 0);
  const Stats stats = duel.cache().stats();
  EXPECT_GT(stats.repacked, 0);
  EXPECT_LE(stats.repacked, stats.appended);
  EXPECT_LE(stats.sealed, stats.appended);
}

}  // namespace
}  // namespace kvast

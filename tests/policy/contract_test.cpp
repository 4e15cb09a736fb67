// SPDX-License-Identifier: Apache-2.0
// What the engine promises to policies, and refuses to guess for them.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kvast/kvast.h"

namespace kvast {
namespace {

/// Counts tokens without a norm: slots that hold none.
struct Watchful {
  static constexpr Needs needs{.key_norms = true};
  static inline int without_norm = 0;
  struct State {};

  float rank(Token token, State) const {
    without_norm += token.key_norm == 0.0F ? 1 : 0;
    return -token.key_norm;
  }
  Budget budget(Layer) const { return tokens(40); }
};

TEST(Contract, OnlyLiveTokensAreRanked) {
  BlockPool pool;
  KVCache<Watchful, Dense<float>> cache(Shape{.head_dim = 8}, Watchful{}, {}, pool);
  const std::vector<float> ones(45 * 8, 1.0F);
  auto pass = cache.begin({.tokens = 45, .last_of_prompt = true});
  pass->append(0, ones.data(), ones.data());
  pass->commit(0);
  EXPECT_EQ(cache.tokens(0, 0), 40);
  EXPECT_EQ(Watchful::without_norm, 0);
}

TEST(Contract, AVoteThatReachesBackIsRefusedWhereTheEngineBringsTheWeights) {
  BlockPool pool;
  KVCache<SnapKV, External> cache(Shape{.head_dim = 8}, SnapKV{.tokens_kept = 32, .window = 16}, {},
                                  pool);
  const std::vector<float> weights(64 * 64, 0.01F);
  {
    auto pass = cache.begin({.tokens = 24, .more_of_prompt = true});
    pass->append(0);
    pass->observe(0, {weights.data(), 64, 64});
    pass->commit(0);
  }
  auto pass = cache.begin({.tokens = 8, .last_of_prompt = true});
  pass->append(0);
  try {
    pass->observe(0, {weights.data(), 64, 64});
    FAIL() << "a window of 16 queries cannot be had from 8";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("last 16 queries, this pass has 8"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace kvast

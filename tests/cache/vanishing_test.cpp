// SPDX-License-Identifier: Apache-2.0
// Everything old goes at once: whole lists of coded blocks vanish in the commit that seals new
// ones.
#include <gtest/gtest.h>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr Shape kShape{.layers = 2, .query_heads = 2, .heads = 1, .head_dim = 64};

template <class Policy>
void run(Policy policy, const std::vector<int>& passes, int steps) {
  BlockPool pool;
  {
    KVCache<Policy, Kivi<4>> cache(kShape, policy, {}, pool);
    test::Random random(1);
    const auto pass_of = [&](int tokens, bool prompt) {
      const auto keys = random.normals(static_cast<std::size_t>(tokens) * 64);
      const auto queries = random.normals(static_cast<std::size_t>(tokens) * 128);
      std::vector<float> output(queries.size());
      auto pass = cache.begin({.tokens = tokens, .last_of_prompt = prompt});
      ASSERT_TRUE(pass);
      for (int layer = 0; layer < kShape.layers; ++layer) {
        pass->append(layer, std::span(keys), std::span(keys));
        pass->attend(layer, std::span(queries), std::span(output));
        pass->commit(layer);
      }
    };
    for (std::size_t turn = 0; turn < passes.size(); ++turn) {
      pass_of(passes[turn], true);
      for (int step = 0; turn == 0 && step < steps; ++step) pass_of(1, false);
      EXPECT_EQ(cache.bytes_in_use(), pool.bytes_in_use());
    }
    EXPECT_GT(cache.tokens(0, 0), 0);
  }
  EXPECT_EQ(pool.bytes_in_use(), 0U);
}

TEST(Vanishing, UnderStreamingWithoutSinks) {
  run(StreamingLLM{.sinks = 0, .recent = 512}, {700, 700, 700}, 0);
}
TEST(Vanishing, UnderH2OAtPrompts) {
  run(H2O{.heavy = 0, .recent = 512, .when = When::prompt()}, {512, 700}, 200);
}
TEST(Vanishing, UnderStreamingAtPrompts) {
  run(StreamingLLM{.sinks = 0, .recent = 200, .when = When::prompt()}, {500, 200, 300}, 400);
}
TEST(Vanishing, UnderStreamingManyAtOnce) {
  run(StreamingLLM{.sinks = 0, .recent = 512, .when = When::full(512)}, {100, 400, 700, 1300}, 0);
}

// A commit cannot be undone, so a policy that throws in one leaves a cache that says so.
struct Throws {
  bool* armed = nullptr;
  static constexpr Needs needs{};
  struct State {};
  float rank(Token, State) const {
    if (*armed) throw std::runtime_error("no");
    return 0.0F;
  }
  Budget budget(Layer) const { return tokens(4); }
};

TEST(TornCommit, IsKnownAsTorn) {
  bool armed = false;
  BlockPool pool;
  KVCache<Throws, External> cache(Shape{.head_dim = 8}, {&armed}, {}, pool);
  {
    auto pass = cache.begin({.tokens = 6});
    pass->append(0);
    armed = true;
    EXPECT_THROW(pass->commit(0), std::runtime_error);
  }
  EXPECT_THROW((void)cache.begin({}), Error);
  cache.clear();
  EXPECT_EQ(pool.bytes_in_use(), 0U);
  EXPECT_TRUE(cache.begin({}));
}

TEST(TornPass, GivesItsReservationBack) {
  BlockPool pool({.byte_limit = 3 << 20});
  KVCache<Full, Dense<float>> torn(kShape, {}, {}, pool);
  KVCache<Full, Dense<float>> other(kShape, {}, {}, pool);
  const std::vector<float> numbers(2000 * 64, 1.0F);
  {
    auto pass = torn.begin({.tokens = 2000});
    ASSERT_TRUE(pass);
    EXPECT_FALSE(other.begin({.tokens = 2000}));
    pass->append(0, std::span(numbers), std::span(numbers));
    pass->commit(0);
  }
  EXPECT_TRUE(other.begin({.tokens = 800}));
}

TEST(MovedCache, ItsOpenPassEndsQuietly) {
  BlockPool pool;
  KVCache<Full, External> cache(kShape, {}, {}, pool);
  auto pass = cache.begin({});
  const KVCache<Full, External> moved(std::move(cache));
  { const auto ended = std::move(pass); }
  EXPECT_EQ(moved.length(), 0);
}

}  // namespace
}  // namespace kvast

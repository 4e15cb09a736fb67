// SPDX-License-Identifier: Apache-2.0
// Positions::unrotated: whatever arrives unrotated is attended to, ranked and given back as if the
// model had rotated it.
#include <gtest/gtest.h>

#include "tests/support/attend_case.h"
#include "tests/support/refused.h"

namespace kvast {
namespace {

const Shape kShape{.query_heads = 6, .heads = 2, .head_dim = 32, .value_dim = 40};

Rope model_rope() {
  Rope rope = Rope::plain(24, 10000.0, Pairing::interleaved);
  rope.scale = 1.125F;
  return rope;
}

/// [tokens, heads, dim] as the model would rotate it, from `first` on.
std::vector<float> rotated(std::vector<float> numbers, int heads, int dim, int first) {
  test::ReferenceRope reference{.interleaved = true, .scale = 1.125};
  for (const float frequency : model_rope().inverse_frequencies)
    reference.frequencies.push_back(static_cast<double>(frequency));
  const auto width = static_cast<std::size_t>(dim);
  for (std::size_t row = 0; row * width < numbers.size(); ++row) {
    const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(row * width);
    std::vector<double> vector(at, at + dim);
    reference.turn(vector, first + static_cast<int>(row) / heads);
    std::copy(vector.begin(), vector.end(), at);
  }
  return numbers;
}

/// Two caches, one fed by a model that rotates and one by a model that leaves it to the cache.
template <class Policy, class Storage>
void expect_same(Policy policy, Storage storage, const std::vector<PassOptions>& passes,
                 double most = 1e-5) {
  BlockPool pool;
  const Rope rope = model_rope();
  KVCache<Policy, Storage> theirs(kShape, policy, storage, pool,
                                  {.rope = Policy::needs.query_moments ? rope : Rope{}});
  KVCache<Policy, Storage> ours(kShape, policy, storage, pool,
                                {.positions = Positions::unrotated, .rope = rope});
  test::Random random(5);
  for (const PassOptions& options : passes) {
    const int count = options.tokens;
    const auto numbers = [&](int width) {
      return random.normals(static_cast<std::size_t>(count * width));
    };
    const auto keys = numbers(2 * 32);
    const auto values = numbers(2 * 40);
    const auto queries = numbers(6 * 32);
    std::vector<float> one(static_cast<std::size_t>(count * 6 * 40));
    std::vector<float> two(one.size());
    const auto run = [&](auto& cache, const std::vector<float>& k, const std::vector<float>& q,
                         std::vector<float>& output) {
      auto pass = cache.begin(options);
      pass->append(0, std::span(k), std::span(values));
      pass->attend(0, std::span(q), std::span(output));
      pass->commit(0);
    };
    const int first = theirs.length();
    run(theirs, rotated(keys, 2, 32, first), rotated(queries, 6, 32, first), one);
    run(ours, keys, queries, two);
    ASSERT_LE(test::relative_error(two.data(), std::vector<double>(one.begin(), one.end())), most);
    for (int head = 0; head < 2; ++head) ASSERT_EQ(ours.kept(0, head), theirs.kept(0, head));
  }
  // what went in comes out
  const auto tokens = static_cast<std::size_t>(ours.tokens(0, 0));
  std::vector<float> plain(tokens * 2 * 32);
  std::vector<float> turned(plain.size());
  ours.export_dense(0, std::span(plain), OutputView());
  theirs.export_dense(0, std::span(turned), OutputView());
  const std::vector<int> kept = ours.kept(0, 0);
  for (std::size_t token = 0; token < tokens; ++token) {
    const auto at = plain.begin() + static_cast<std::ptrdiff_t>(token * 64);
    const auto again = rotated({at, at + 32}, 1, 32, kept[token]);
    for (std::size_t dim = 0; dim < 32; ++dim)
      ASSERT_NEAR(again[dim], turned[token * 64 + dim], 20.0 * most);
  }
}

std::vector<PassOptions> prompt_and_steps() {
  std::vector<PassOptions> passes{{.tokens = 60, .more_of_prompt = true},
                                  {.tokens = 40, .last_of_prompt = true}};
  passes.insert(passes.end(), 60, PassOptions{});
  passes.push_back({.tokens = 5});
  return passes;
}

TEST(Unrotated, IsAsIfTheModelHadRotated) {
  expect_same(Full{}, Dense<float>{}, prompt_and_steps());
  expect_same(StreamingLLM{.sinks = 4, .recent = 60}, Dense<float>{}, prompt_and_steps());
  expect_same(H2O{.heavy = 20, .recent = 20}, Dense<float>{}, prompt_and_steps());
}

// Queries of earlier chunks are replayed at their own positions.
TEST(Unrotated, PoliciesThatReplayQueries) {
  expect_same(SnapKV{.tokens_kept = 50, .window = 48}, Dense<float>{}, prompt_and_steps());
}

// Policies that read keys see them rotated, and query moments are of queries before rotation.
TEST(Unrotated, PoliciesThatReadKeysAndMoments) {
  expect_same(KeyDiff{.tokens_kept = 50}, Dense<float>{}, prompt_and_steps());
  std::vector<PassOptions> whole{{.tokens = 100, .last_of_prompt = true}, {}, {}};
  expect_same(ExpectedAttention{.tokens_kept = 50}, Dense<float>{}, whole);
}

TEST(Unrotated, RotatedStorageTurnsAfterwards) {
  expect_same(Full{}, Rotated<Kivi<8>>{}, prompt_and_steps(), 2e-3);
}

TEST(Unrotated, WhatItCannotBeIsRefused) {
  BlockPool pool;
  test::expect_refused(
      [&] {
        KVCache<Full, Dense<float>>(kShape, {}, {}, pool, {.positions = Positions::unrotated});
      },
      {"options.rope", "unrotated"});
  test::expect_refused(
      [&] {
        KVCache<Full, External>(kShape, {}, {}, pool,
                                {.positions = Positions::unrotated, .rope = model_rope()});
      },
      {"unrotated", "keeps keys"});
}

/// A pair turns by 45 degrees at worst, and then one of the two is larger by a factor of sqrt(2).
TEST(Unrotated, NumbersThatRotationMakesTooLargeAreRefused) {
  for (const Positions positions : {Positions::unrotated, Positions::compacted}) {
    BlockPool pool;
    KVCache<Full, Dense<half>> cache(
        Shape{.head_dim = 8}, {}, {}, pool,
        {.positions = positions, .rope = Rope::plain(8, 10000.0, Pairing::halves)});
    const std::vector<float> large(8, 60000.0F);
    auto pass = cache.begin({.tokens = 1});
    test::expect_refused([&] { pass->append(0, std::span(large), std::span(large)); },
                         {"append: keys", "60000"});
    const std::vector<float> fits(8, 46000.0F);
    pass->append(0, std::span(fits), std::span(large));
  }
}

}  // namespace
}  // namespace kvast

// SPDX-License-Identifier: Apache-2.0
// Where tokens lie changes nothing: the same tokens in other slots are ranked, kept and attended
// alike.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kvast/kvast.h"
#include "tests/support/random.h"

namespace kvast {
namespace {

constexpr Shape kShape{.query_heads = 2, .heads = 2, .head_dim = 16};
constexpr int kScrambled = 120;  ///< positions before this are scrambled, or arrive in order

bool is_junk(int position) { return position < kScrambled && position % 3 == 1; }

/// A policy that also drops junk: what stays is then scattered over the holes.
template <class Policy>
struct WithJunk : Policy {
  float rank(Token token, typename Policy::State state) const {
    return is_junk(token.position) ? kDrop : Policy::rank(token, state);
  }
};
/// The newest `recent` stay, as under the policy; needs nothing.
struct Recent {
  int recent = 64;
  When when = When::step();
  static constexpr Needs needs{};
  struct State {};
  float rank(Token token, State) const { return token.age < recent ? kPin : kDrop; }
};

/// Weights that are coarse, so that ties are common and must be decided by position.
float weight_of(int query, int head, int position) {
  const auto bits =
      test::mix(static_cast<std::uint64_t>(query) * 1000003U +
                static_cast<std::uint64_t>(position) * 31U + static_cast<std::uint64_t>(head));
  return static_cast<float>(bits % 8) / 256.0F;
}

template <class Cache>
void observed_pass(Cache& cache, const std::vector<int>& positions, bool last) {
  const auto count = static_cast<int>(positions.size());
  auto pass = cache.begin({.tokens = count, .last_of_prompt = last, .positions = positions});
  std::vector<float> keys;
  for (const int position : positions) {
    for (int at = 0; at < 32; ++at)
      keys.push_back(static_cast<float>(test::mix(static_cast<std::uint64_t>(position / 4)) % 5));
  }
  pass->append(0, keys.data());
  std::size_t width = 0;
  std::vector<std::vector<int>> slots;
  for (int head = 0; head < 2; ++head) {
    slots.push_back(cache.slots(0, head));
    width = std::max(width, slots.back().size());
  }
  std::vector<float> weights(static_cast<std::size_t>(count) * 2 * width);
  for (std::size_t token = 0; token < positions.size(); ++token) {
    for (std::size_t head = 0; head < 2; ++head) {
      for (std::size_t slot = 0; slot < slots[head].size(); ++slot) {
        const int position = slots[head][slot];
        if (position >= 0 && !is_junk(position) && !is_junk(positions[token]))
          weights[(token * 2 + head) * width + slot] =
              weight_of(positions[token], static_cast<int>(head), position);
      }
    }
  }
  pass->observe(
      0, {weights.data(), static_cast<std::int64_t>(2 * width), static_cast<std::int64_t>(width)});
  pass->commit(0);
}

template <class Policy>
void expect_same_sets(Policy policy) {
  BlockPool pool;
  KVCache<WithJunk<Policy>, External> scattered(kShape, {policy}, {}, pool);
  KVCache<WithJunk<Policy>, External> ordered(kShape, {policy}, {}, pool);
  std::vector<int> all(kScrambled);
  std::iota(all.begin(), all.end(), 0);
  std::vector<int> real = all;
  std::erase_if(real, is_junk);
  observed_pass(scattered, all, true);
  observed_pass(ordered, real, true);
  ASSERT_EQ(scattered.kept(0, 0), ordered.kept(0, 0));
  ASSERT_NE(scattered.slots(0, 0), ordered.slots(0, 0)) << "the slots must differ for this to test";
  for (int step = 0; step < 150; ++step) {
    observed_pass(scattered, {kScrambled + step}, step % 50 == 49);
    observed_pass(ordered, {kScrambled + step}, step % 50 == 49);
    for (int head = 0; head < 2; ++head)
      ASSERT_EQ(scattered.kept(0, head), ordered.kept(0, head)) << "step " << step;
  }
}

TEST(Permutation, TheSameTokensAreKept) {
  expect_same_sets(H2O{.heavy = 40, .recent = 40});
  expect_same_sets(H2O{.heavy = 60, .recent = 20, .by_lifetime = true});
  expect_same_sets(TOVA{.tokens_kept = 80});
  expect_same_sets(L2Norm{.tokens_kept = 80, .skip = {}, .when = When::step()});
}

// Attention over the same tokens in other slots differs by rounding only.
TEST(Permutation, AttentionIsTheSame) {
  BlockPool pool;
  KVCache<WithJunk<Recent>, Dense<float>> scattered(kShape, {{.recent = 1000}}, {}, pool);
  KVCache<WithJunk<Recent>, Dense<float>> ordered(kShape, {{.recent = 1000}}, {}, pool);
  test::Random random(3);
  const auto keys = random.normals(kScrambled * 32);
  const auto values = random.normals(kScrambled * 32);
  std::vector<int> real;
  std::vector<float> real_keys, real_values;
  for (int position = 0; position < kScrambled; ++position) {
    if (is_junk(position)) continue;
    real.push_back(position);
    real_keys.insert(real_keys.end(), keys.begin() + position * 32,
                     keys.begin() + position * 32 + 32);
    real_values.insert(real_values.end(), values.begin() + position * 32,
                       values.begin() + position * 32 + 32);
  }
  {
    auto pass = scattered.begin({.tokens = kScrambled});
    pass->append(0, std::span(keys), std::span(values));
    pass->commit(0);
    auto other = ordered.begin({.tokens = static_cast<int>(real.size()), .positions = real});
    other->append(0, real_keys.data(), real_values.data());
    other->commit(0);
  }
  ASSERT_NE(scattered.slots(0, 1), ordered.slots(0, 1));
  std::vector<float> bias(200);
  for (std::size_t at = 0; at < bias.size(); ++at) bias[at] = 0.05F * static_cast<float>(at % 17);
  for (int step = 0; step < 5; ++step) {
    const auto key = random.normals(32);
    const auto query = random.normals(32, 2.0);
    std::vector<float> one(32), two(32);
    const auto run = [&](auto& cache, std::vector<float>& output) {
      const std::vector<int> position{kScrambled + step};
      auto pass = cache.begin({.tokens = 1, .positions = position});
      pass->append(0, std::span(key), std::span(key));
      pass->attend(0, std::span(query), std::span(output),
                   {.window = 90, .bias = {.data = bias.data(), .positions = 200}});
      pass->commit(0);
    };
    run(scattered, one);
    run(ordered, two);
    for (std::size_t at = 0; at < one.size(); ++at) EXPECT_NEAR(one[at], two[at], 2e-6);
  }
}

}  // namespace
}  // namespace kvast

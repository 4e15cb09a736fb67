// SPDX-License-Identifier: Apache-2.0
// A scripted sequence: the logits are given, and a cache is driven so that its attention has them
// exactly.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kvast/kvast.h"
#include "tests/support/refused.h"

namespace kvast::test {

/// Logit of a query head's query at position `step` for the key at `position`.
using Logits = std::function<double(int query_head, int step, int position)>;

/// L2 norm of a head's key.
using Norms = std::function<double(int head, int position)>;

/// What a model would do. `shape.head_dim` is at least the number of positions: keys are one-hot.
struct Script {
  Shape shape;
  Logits logits;
  Norms norms = [](int, int) { return 1.0; };
};

/// One pass.
struct Turn {
  int tokens = 1;
  bool last_of_prompt = false;
  bool more_of_prompt = false;
  std::vector<TokenKind> kinds{};
};

/// A number in [0, 1) from four integers, the same on every machine.
inline double noise(std::uint64_t seed, int first, int second, int third) {
  std::uint64_t bits = seed * 0x9E3779B97F4A7C15U;
  for (const int part : {first, second, third}) {
    bits += static_cast<std::uint64_t>(part) + 0x9E3779B97F4A7C15U;
    bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;
    bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
    bits ^= bits >> 31U;
  }
  return static_cast<double>(bits >> 11U) * 0x1p-53;
}

/// Logits as attention has them: some keys matter to everybody, the near past matters more, the
/// rest is noise.
inline Logits random_logits(std::uint64_t seed) {
  return [seed](int query_head, int step, int position) {
    const double common = 3.0 * noise(seed, 1000 + query_head / 2, 0, position);
    const double own = 3.0 * noise(seed, query_head, step, position);
    return common + own - 0.02 * (step - position);
  };
}

/// Drives one cache through a script. External storage is shown the softmax of the logits, computed
/// in double; the others get one-hot keys and queries whose products are the logits.
template <class Policy, class Storage>
class Run {
 public:
  Run(const Script& script, Policy policy, CacheOptions options = {})
      : script_(script), cache_(script.shape, policy, AnyStorage(Storage{}), pool_, options) {}

  void pass(const Turn& turn) {
    auto pass = cache_.begin({.tokens = turn.tokens,
                              .last_of_prompt = turn.last_of_prompt,
                              .more_of_prompt = turn.more_of_prompt,
                              .kinds = turn.kinds});
    const Shape& shape = script_.shape;
    const int first = cache_.length();
    const std::vector<float> keys = keys_of(first, turn.tokens);
    const std::vector<float> values(size(turn.tokens, shape.heads, shape.values()), 1.0F);
    for (int layer = 0; layer < shape.layers; ++layer) {
      pass->append(layer, std::span<const float>(keys), std::span<const float>(values));
      if constexpr (std::is_same_v<Storage, External>) {
        if (Policy::needs.attention) observe(*pass, layer, first, turn.tokens);
      } else {
        const std::vector<float> queries = queries_of(first, turn.tokens);
        std::vector<float> output(size(turn.tokens, shape.query_heads, shape.values()));
        pass->attend(layer, std::span<const float>(queries), std::span<float>(output),
                     {.scale = 1.0F});
      }
      pass->commit(layer);
    }
  }
  std::vector<int> kept(int head = 0, int layer = 0) const { return cache_.kept(layer, head); }
  KVCache<Policy, AnyStorage>& cache() { return cache_; }

 private:
  static std::size_t size(int tokens, int heads, int dim) {
    return static_cast<std::size_t>(tokens) * static_cast<std::size_t>(heads * dim);
  }
  std::vector<float> keys_of(int first, int tokens) const {
    const Shape& shape = script_.shape;
    std::vector<float> keys(size(tokens, shape.heads, shape.head_dim));
    for (int row = 0; row < tokens * shape.heads; ++row) {
      const int position = first + row / shape.heads;
      keys.at(static_cast<std::size_t>(row * shape.head_dim + position)) =
          static_cast<float>(script_.norms(row % shape.heads, position));
    }
    return keys;
  }
  std::vector<float> queries_of(int first, int tokens) const {
    const Shape& shape = script_.shape;
    std::vector<float> queries;
    for (int step = first; step < first + tokens; ++step) {
      for (int query_head = 0; query_head < shape.query_heads; ++query_head) {
        for (int position = 0; position < shape.head_dim; ++position) {
          const double norm = script_.norms(query_head / shape.group(), position);
          queries.push_back(static_cast<float>(script_.logits(query_head, step, position) / norm));
        }
      }
    }
    return queries;
  }
  template <class Pass>
  void observe(Pass& pass, int layer, int first, int tokens) const {
    const Shape& shape = script_.shape;
    std::size_t most = 0;
    for (int head = 0; head < shape.heads; ++head)
      most = std::max(most, cache_.slots(layer, head).size());
    std::vector<float> weights(size(tokens, shape.query_heads, static_cast<int>(most)), 7.0F);
    for (int query_head = 0; query_head < shape.query_heads; ++query_head) {
      const std::vector<int> slots = cache_.slots(layer, query_head / shape.group());
      for (int token = 0; token < tokens; ++token) {
        const int step = first + token;
        const auto sees = [&](int position) { return position >= 0 && position <= step; };
        double sum = 0.0;
        for (const int position : slots)
          if (sees(position)) sum += std::exp(script_.logits(query_head, step, position));
        for (std::size_t slot = 0; slot < slots.size(); ++slot) {
          if (!sees(slots[slot])) continue;  // what a query cannot see stays 7: nobody may read it
          weights[static_cast<std::size_t>(token * shape.query_heads + query_head) * most + slot] =
              static_cast<float>(std::exp(script_.logits(query_head, step, slots[slot])) / sum);
        }
      }
    }
    pass.observe(layer, {.data = weights.data(),
                         .token_stride = static_cast<std::int64_t>(most) * shape.query_heads,
                         .head_stride = static_cast<std::int64_t>(most)});
  }

  Script script_;
  BlockPool pool_;
  KVCache<Policy, AnyStorage> cache_;
};

/// What a whole-head policy ranks after these states, newest last.
template <class Policy>
std::vector<float> ranks_of(const Policy& policy, std::vector<typename Policy::State> states,
                            int budget, int first = 0) {
  const int count = static_cast<int>(states.size());
  std::vector<Token> tokens;
  for (int at = 0; at < count; ++at)
    tokens.push_back({.position = first + at, .age = count - 1 - at});
  std::vector<float> ranks(states.size());
  HeadView<typename Policy::State> view{};
  view.tokens = tokens;
  view.states = states;
  view.budget = budget;
  policy.rank_head(view, ranks);
  return ranks;
}

/// Tests of a policy run on both.
using Storages = testing::Types<External, Dense<float>>;
struct StorageNames {
  template <class Storage>
  static std::string GetName(int) {
    return std::is_same_v<Storage, External> ? "External" : "Dense";
  }
};

/// Expects a cache with this policy to be refused with a message that has every part.
template <class Policy>
void expect_policy_refused(Policy policy, const std::vector<std::string>& parts) {
  BlockPool pool;
  expect_refused(
      [&] { KVCache<Policy, External>(Shape{.layers = 3, .head_dim = 8}, policy, {}, pool); },
      parts);
}

}  // namespace kvast::test

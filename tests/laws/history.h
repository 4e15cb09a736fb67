// SPDX-License-Identifier: Apache-2.0
// Random histories of a cache, and the laws that must hold after each of their operations.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/laws/any_cache.h"
#include "tests/support/random.h"

namespace kvast::test {

/// Pins survive, budgets hold, heads list what they hold, and the pool counts what the cache
/// counts.
inline void expect_laws(const Cell& cell, const AnyCache& cache, bool ended_prompt) {
  const Promise& promise = cell.policy;
  const Kept kept = cache.kept();
  for (std::size_t layer = 0; layer < kept.size(); ++layer) {
    for (std::size_t head = 0; head < kept[layer].size(); ++head) {
      const std::vector<int>& positions = kept[layer][head];
      ASSERT_EQ(static_cast<int>(positions.size()),
                cache.tokens(static_cast<int>(layer), static_cast<int>(head)));
      ASSERT_TRUE(std::is_sorted(positions.begin(), positions.end()));
      ASSERT_TRUE(std::adjacent_find(positions.begin(), positions.end()) == positions.end());
      if (!positions.empty()) {
        ASSERT_GE(positions.front(), 0);
        ASSERT_LT(positions.back(), cache.length());
      }
      const bool limited = promise.budget >= 0 && static_cast<int>(layer) >= promise.slack_layers &&
                           (ended_prompt || !promise.only_at_prompts);
      if (limited && promise.shares_budget) {
        std::size_t together = 0;
        for (const auto& head_kept : kept[layer]) together += head_kept.size();
        ASSERT_LE(together, static_cast<std::size_t>(promise.budget) * kept[layer].size());
      } else if (limited) {
        ASSERT_LE(static_cast<int>(positions.size()), promise.budget) << cell.name();
      }
      const auto has = [&](int position) {
        return std::binary_search(positions.begin(), positions.end(), position);
      };
      for (int position = 0; position < std::min(promise.sinks, cache.length()); ++position)
        ASSERT_TRUE(has(position)) << cell.name() << " lost sink " << position;
      for (int age = 0; age < std::min(promise.recent, cache.length()); ++age)
        ASSERT_TRUE(has(cache.length() - 1 - age)) << cell.name() << " lost a token of age " << age;
      if (static_cast<int>(layer) < promise.slack_layers) {
        ASSERT_EQ(static_cast<int>(positions.size()), cache.length());
      }
      if (promise.shared_by_layer) {
        ASSERT_EQ(positions, kept[layer][0]);
      }
    }
  }
}

/// `operations` random operations on one cell. Forks come and go; the cache that goes on is either.
inline void run_history(const Cell& cell, int operations, std::uint64_t seed) {
  SCOPED_TRACE(cell.name() + ", seed " + std::to_string(seed));
  Random random(seed);
  BlockPool pool;
  {
    auto cache = cell.make(pool, serial());
    std::unique_ptr<AnyCache> other;
    for (int operation = 0; operation < operations; ++operation) {
      bool ended_prompt = false;
      std::vector<float> outputs;
      int dice = random.below(100);
      // they refuse a prompt that begins with passes that are none
      if (cell.policy.whole_prompts && cache->length() == 0 && dice < 80) dice = 75;
      if (dice < 60) {
        outputs = cache->run(1, Phase::decode);
      } else if (dice < 70) {
        outputs = cache->run(random.between(2, 6), Phase::decode);
      } else if (dice < 76) {
        outputs = cache->run(random.between(1, 90), Phase::prompt);
        ended_prompt = true;
      } else if (dice < 80 && cell.policy.whole_prompts) {
        ASSERT_THROW((void)cache->run(1, Phase::chunk), Error);
      } else if (dice < 80) {
        (void)cache->run(random.between(1, 40), Phase::chunk);
        // External cannot vote with queries of the chunk before
        outputs = cache->run(random.between(8, 40), Phase::prompt);
        ended_prompt = true;
      } else if (dice < 87) {
        const std::size_t bytes = cache->bytes();
        const Kept kept = cache->kept();
        cache->drop(random.between(1, 70), random.between(0, kLawShape.layers), random.chance(0.5));
        ASSERT_EQ(cache->bytes(), bytes) << "a dropped pass left bytes behind";
        ASSERT_EQ(cache->kept(), kept);
      } else if (dice < 92) {
        other = cache->fork();
        ASSERT_EQ(other->kept(), cache->kept());
        ASSERT_EQ(other->bytes(), cache->bytes());
        if (random.chance(0.5)) std::swap(cache, other);
      } else if (dice < 96) {
        other.reset();
      } else if (dice < 98) {
        for (const float number : cache->exported()) ASSERT_TRUE(std::isfinite(number));
      } else {
        if (other != nullptr) std::swap(cache, other);
      }
      if (cache->length() > 900 || (dice == 99 && random.chance(0.1))) {
        cache->clear();
        ASSERT_EQ(cache->bytes(), 0U);
        ASSERT_EQ(cache->length(), 0);
      }
      for (const float number : outputs) ASSERT_TRUE(std::isfinite(number));
      expect_laws(cell, *cache, ended_prompt);
      if (testing::Test::HasFatalFailure()) return;
      if (other == nullptr) {
        ASSERT_EQ(cache->bytes(), pool.bytes_in_use()) << "after operation " << operation;
      } else {
        ASSERT_LE(pool.bytes_in_use(), cache->bytes() + other->bytes());
        ASSERT_GE(pool.bytes_in_use(), std::max(cache->bytes(), other->bytes()));
      }
    }
  }
  EXPECT_EQ(pool.bytes_in_use(), 0U) << "every block was given back";
  pool.trim();
  EXPECT_EQ(pool.bytes_held(), 0U);
}

}  // namespace kvast::test

// SPDX-License-Identifier: Apache-2.0
// Random histories of a cache, and the laws that must hold after each of their operations.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "tests/laws/any_cache.h"
#include "tests/support/random.h"
#include "tests/support/refused.h"

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
      const int budget = promise.budget_at(layer, ended_prompt);
      const bool limited = budget >= 0 && static_cast<int>(layer) >= promise.slack_layers &&
                           (ended_prompt || !promise.only_at_prompts);
      if (limited && promise.shares_budget) {
        std::size_t together = 0;
        for (const auto& head_kept : kept[layer]) together += head_kept.size();
        ASSERT_LE(together, static_cast<std::size_t>(budget) * kept[layer].size());
      } else if (limited) {
        ASSERT_LE(static_cast<int>(positions.size()), budget) << cell.name();
      }
      const auto has = [&](int position) {
        return std::binary_search(positions.begin(), positions.end(), position);
      };
      for (int position = 0; position < std::min(promise.sinks, cache.length()); ++position)
        ASSERT_TRUE(has(position)) << cell.name() << " lost sink " << position;
      for (int age = 0; age < std::min(promise.recent, cache.length()); ++age)
        ASSERT_TRUE(has(cache.length() - 1 - age)) << cell.name() << " lost a token of age " << age;
      for (int position = 0; promise.keeps_specials && position < cache.length(); ++position)
        ASSERT_TRUE(kind_of(position) != TokenKind::special || has(position))
            << cell.name() << " lost special token " << position;
      if (static_cast<int>(layer) < promise.slack_layers) {
        ASSERT_EQ(static_cast<int>(positions.size()), cache.length());
      }
      if (promise.shared_by_layer) {
        ASSERT_EQ(positions, kept[layer][0]);
      }
    }
  }
}

/// How often a history met the situations in which the laws must hold.
struct Met {
  int prompts = 0;
  int later_prompts = 0;  ///< of a cache that had one before
  int chunks = 0;         ///< prompts in chunks, or refusals of them
  int decode_steps = 0;
  int after_fork = 0;  ///< passes of a copy
};

/// A cache of a history, and what it went through.
struct Line {
  std::unique_ptr<AnyCache> cache;
  bool prompted = false;
  bool copied = false;
};

/// One pass of a line.
inline std::vector<float> run_line(Line& line, int tokens, Phase phase, Met& met) {
  met.after_fork += line.copied ? 1 : 0;
  met.decode_steps += phase == Phase::decode ? 1 : 0;
  if (phase == Phase::prompt) {
    met.prompts += 1;
    met.later_prompts += line.prompted ? 1 : 0;
    line.prompted = true;
  }
  return line.cache->run(tokens, phase);
}

/// `operations` random operations on one cell. Forks come and go; the cache that goes on is either.
/// It is long enough when it met every situation.
inline void run_history(const Cell& cell, int operations, std::uint64_t seed) {
  SCOPED_TRACE(cell.name() + ", seed " + std::to_string(seed));
  Random random(seed);
  BlockPool pool;
  Met met;
  {
    Line line{cell.make(pool, serial())};
    Line other;
    for (int operation = 0; operation < operations; ++operation) {
      bool ended_prompt = false;
      std::vector<float> outputs;
      int dice = random.below(100);
      // they refuse a prompt that begins with passes that are none
      if (cell.policy.whole_prompts && line.cache->length() == 0 && dice < 80) dice = 75;
      if (dice < 60) {
        outputs = run_line(line, 1, Phase::decode, met);
      } else if (dice < 70) {
        outputs = run_line(line, random.between(2, 6), Phase::decode, met);
      } else if (dice < 76) {
        outputs = run_line(line, random.between(1, 90), Phase::prompt, met);
        ended_prompt = true;
      } else if (dice < 80 && cell.policy.whole_prompts) {
        const Kept kept = line.cache->kept();
        expect_refused([&] { (void)line.cache->run(1, Phase::chunk); },
                       {cell.policy.name, "needs the whole prompt in one pass"});
        ASSERT_EQ(line.cache->kept(), kept);
        ++met.chunks;
      } else if (dice < 80) {
        (void)run_line(line, random.between(1, 40), Phase::chunk, met);
        // External cannot vote with queries of the chunk before
        outputs = run_line(line, random.between(8, 40), Phase::prompt, met);
        ended_prompt = true;
        ++met.chunks;
      } else if (dice < 87) {
        const std::size_t bytes = line.cache->bytes();
        const Kept kept = line.cache->kept();
        const Phase phases[] = {Phase::decode, Phase::prompt, Phase::chunk};
        const int phase = random.below(cell.policy.whole_prompts ? 2 : 3);
        line.cache->drop(random.between(1, 70), random.between(0, cell.shape().layers),
                         random.chance(0.5), phases[phase]);
        ASSERT_EQ(line.cache->bytes(), bytes) << "a dropped pass left bytes behind";
        ASSERT_EQ(line.cache->kept(), kept);
      } else if (dice < 92) {
        other = {line.cache->fork(), line.prompted, true};
        ASSERT_EQ(other.cache->kept(), line.cache->kept());
        ASSERT_EQ(other.cache->bytes(), line.cache->bytes());
        if (random.chance(0.5)) std::swap(line, other);
      } else if (dice < 96) {
        other = {};
      } else if (dice < 98) {
        for (const float number : line.cache->exported()) ASSERT_TRUE(std::isfinite(number));
      } else {
        if (other.cache != nullptr) std::swap(line, other);
      }
      if (line.cache->length() > 900 || (dice == 99 && random.chance(0.1))) {
        line.cache->clear();
        line.prompted = line.copied = false;
        ASSERT_EQ(line.cache->bytes(), 0U);
        ASSERT_EQ(line.cache->length(), 0);
      }
      for (const float number : outputs) ASSERT_TRUE(std::isfinite(number));
      expect_laws(cell, *line.cache, ended_prompt);
      if (testing::Test::HasFatalFailure()) return;
      if (other.cache == nullptr) {
        ASSERT_EQ(line.cache->bytes(), pool.bytes_in_use()) << "after operation " << operation;
      } else {
        ASSERT_LE(pool.bytes_in_use(), line.cache->bytes() + other.cache->bytes());
        ASSERT_GE(pool.bytes_in_use(), std::max(line.cache->bytes(), other.cache->bytes()));
      }
    }
  }
  EXPECT_EQ(pool.bytes_in_use(), 0U) << "every block was given back";
  pool.trim();
  EXPECT_EQ(pool.bytes_held(), 0U);
  for (const int times :
       {met.prompts, met.later_prompts, met.chunks, met.decode_steps, met.after_fork})
    EXPECT_GE(times, 5) << "too short: " << met.prompts << " prompts, " << met.later_prompts
                        << " later ones, " << met.chunks << " in chunks or refused, "
                        << met.decode_steps << " decode steps, " << met.after_fork
                        << " passes after a fork";
}

}  // namespace kvast::test

// SPDX-License-Identifier: Apache-2.0
// How the blocks of a batch are split for attention: so that every processor has work, however
// lengths differ, and no part is too short to be worth its merge.
#pragma once

#include <cstdint>

#include "kvast/core/host_device.h"
#include "kvast/core/numeric.h"

namespace kvast::gpu {

/// A range of blocks of one head: what one turn of a persistent thread block reads.
struct WorkItem {
  int sequence = 0;
  int head = 0;   ///< kv head
  int first = 0;  ///< block, in the order of Head::block
  int end = 0;
  int part = 0;   ///< which of the head's parts
  int parts = 1;  ///< how many it has; where it is 1 nothing is left to merge
};

/// The parts of one head, in order: items [first, first + parts).
struct HeadItems {
  int first = 0;
  int parts = 0;  ///< 0: the head has no tokens
};

/// A head's blocks, coded ones first, counted by what it costs to read them: a coded one is 1.
struct BlockCosts {
  int coded = 0;       ///< of the head's blocks
  int dense_cost = 1;  ///< of a dense block

  KVAST_HD constexpr int cost(int blocks) const {
    return blocks <= coded ? blocks : coded + (blocks - coded) * dense_cost;
  }
  /// Blocks that cost no more.
  KVAST_HD constexpr int blocks(int cost) const {
    return cost <= coded ? cost : coded + (cost - coded) / dense_cost;
  }
};

struct SplitRules {
  int workers = 1;       ///< thread blocks that run at the same time
  int least_blocks = 8;  ///< by cost; parts of fewer would cost more to merge than they bring
  int dense_cost = 1;    ///< of a dense block, in coded ones; where there are none nothing depends
                         ///< on it
};

/// Rules for a cache whose coded blocks, and dense ones, have so many bytes. A block takes time for
/// its bytes, and for what is done with it whatever its format, which is that of two sevenths of a
/// dense one's (bench/results/README.md has the instructions).
KVAST_HD constexpr SplitRules rules_of_bytes(int workers, std::int64_t coded, std::int64_t dense) {
  SplitRules rules{.workers = workers};
  if (coded > 0) {
    const std::int64_t one = coded + dense * 2 / 7;
    rules.dense_cost = static_cast<int>(most_of<std::int64_t>((dense * 9 / 7 + one / 2) / one, 1));
  }
  return rules;
}

/// Lengths of parts to choose from. Thread blocks take parts in turn, so a batch takes as long as
/// they have rounds, times a part: the `round`-th multiple of the workers' number is divided among
/// heads as cost is, the longest one getting a whole number of parts, or some of eight steps less,
/// since heads that are not multiples of a part leave incomplete ones.
struct SplitChoices {
  static constexpr int kRounds = 4;
  static constexpr int kSteps = 8;
  static constexpr int kCount = kRounds * kSteps;
  std::int64_t all = 0;  ///< cost of all heads
  int longest = 0;       ///< cost of one

  /// Of choice `at`, at least rules.least_blocks.
  KVAST_HD constexpr int per_part(int at, SplitRules rules) const {
    const std::int64_t items = std::int64_t{most_of(rules.workers, 1)} * (at / kSteps + 1);
    const std::int64_t parts = items * longest / most_of<std::int64_t>(all, 1);
    const std::int64_t fewer = most_of<std::int64_t>(parts * (kSteps - at % kSteps) / kSteps, 1);
    return static_cast<int>(
        most_of<std::int64_t>((longest + fewer - 1) / fewer, rules.least_blocks));
  }
};

/// The rounds of `items` parts, times a part. The least is chosen, the first of several: that
/// depends on lengths and the number of workers alone, so results are the same bits from run to
/// run.
KVAST_HD constexpr std::int64_t time_of(std::int64_t items, int per_part, SplitRules rules) {
  const int workers = most_of(rules.workers, 1);
  return (items + workers - 1) / workers * per_part;
}

/// Parts of a head of `blocks` blocks, by cost; they differ by at most one.
KVAST_HD constexpr int parts_of(int blocks, int per_part) {
  return (blocks + per_part - 1) / per_part;
}
KVAST_HD constexpr int part_begin(int blocks, int parts, int part) {
  return static_cast<int>(static_cast<std::int64_t>(blocks) * part / parts);
}

/// Items that a plan can have at most, whatever the lengths: what the work list must have room for.
/// Each head has at most as many as its part of all rounds, and an incomplete one.
KVAST_HD constexpr std::int64_t most_items(int heads, SplitRules rules) {
  return std::int64_t{heads} + std::int64_t{SplitChoices::kRounds} * most_of(rules.workers, 1);
}

}  // namespace kvast::gpu

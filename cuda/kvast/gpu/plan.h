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

struct SplitRules {
  int workers = 1;       ///< thread blocks that run at the same time
  int least_blocks = 8;  ///< fewer are not split: their merge would cost more than it brings
};

/// Blocks to a part. The most that gives each worker at least one part, in whole `least_blocks`.
/// Depends on lengths and the number of workers alone, so results are the same bits from run to
/// run.
KVAST_HD constexpr int blocks_per_part(std::int64_t all_blocks, SplitRules rules) {
  const std::int64_t each = all_blocks / most_of(rules.workers, 1);
  const std::int64_t units = most_of<std::int64_t>(each / rules.least_blocks, 1);
  return static_cast<int>(least_of<std::int64_t>(units * rules.least_blocks, 1 << 20));
}

/// Parts of a head of `blocks` blocks; they differ by at most one block.
KVAST_HD constexpr int parts_of(int blocks, int per_part) {
  return (blocks + per_part - 1) / per_part;
}
KVAST_HD constexpr int part_begin(int blocks, int parts, int part) {
  return static_cast<int>(static_cast<std::int64_t>(blocks) * part / parts);
}

/// Items that a plan can have at most, whatever the lengths: what the work list must have room for.
KVAST_HD constexpr std::int64_t most_items(int heads, SplitRules rules) {
  return std::int64_t{heads} + 2 * std::int64_t{most_of(rules.workers, 1)};
}

}  // namespace kvast::gpu

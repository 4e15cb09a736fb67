// SPDX-License-Identifier: Apache-2.0
// Which sparse coded blocks are merged: what every backend decides alike.
#pragma once

#include "kvast/core/block.h"

namespace kvast {

/// Blocks that are merged at a time, at most.
inline constexpr int kRepackBlocks = 8;

/// True where coded slots exceed 4/3 of the head's live tokens, and fewer blocks would hold them.
/// Of heads whose tokens may move.
KVAST_HD inline bool wants_repack(const Head& head) {
  return head.coded.count >= 2 &&
         std::int64_t{head.coded.count} * kBlockTokens * 3 > std::int64_t{head.live()} * 4 &&
         head.coded.count > blocks_of(head.coded.live);
}

/// Merging goes on until so few coded blocks are left: at most 7/6 of the live slots.
KVAST_HD inline int repack_target(const BlockList& coded) {
  const std::int64_t slots = std::int64_t{coded.live} * 7 / 6;
  return most_of(blocks_of(coded.live), static_cast<int>(slots / kBlockTokens));
}

/// Blocks that are not full are merged in the order of this: the emptiest first, of equal ones the
/// first of the list. `live` is less than 32, and no list has 2^26 blocks.
KVAST_HD constexpr int merge_key(int live, int index) { return live << 26 | index; }
KVAST_HD constexpr int live_of_key(int key) { return key >> 26; }
KVAST_HD constexpr int index_of_key(int key) { return key & ((1 << 26) - 1); }

/// The first `count` blocks become `made` fewer ones.
struct Merge {
  int count = 0;
  int made = 0;
};

/// Of the `candidates` least keys, ascending, at most kRepackBlocks: frees at most `surplus`
/// blocks, at the least number of tokens for as many as can be freed.
KVAST_HD inline Merge choose_merge(const int* keys, int candidates, int surplus) {
  Merge best;
  int live = 0;
  for (int count = 1; count <= candidates; ++count) {
    live += live_of_key(keys[count - 1]);
    const int made = blocks_of(live);
    if (count - made > best.count - best.made && count - made <= surplus) best = {count, made};
  }
  return best;
}

}  // namespace kvast

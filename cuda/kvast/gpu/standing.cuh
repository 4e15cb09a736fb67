// SPDX-License-Identifier: Apache-2.0
// Where tokens stand in select: their ranks as unsigned numbers, and what is known of all of them.
#pragma once

#include "kvast/core/policy.h"
#include "kvast/gpu/collective.cuh"
#include "kvast/gpu/tables.cuh"

namespace kvast::gpu {

/// rank_key from 0 on, in the same order: 0 is dropped, kPinned is pinned, between them are the
/// open ones, which may stay or go.
inline constexpr std::uint32_t kPinned = 2U * static_cast<std::uint32_t>(kPinKey);
inline constexpr std::uint32_t kAbsent = 0xFFFFFFFFU;  ///< no token, or one that takes no part

KVAST_HD inline std::uint32_t standing_of(float rank) {
  return static_cast<std::uint32_t>(rank_key(rank)) - static_cast<std::uint32_t>(kDropKey);
}
KVAST_HD inline bool is_open(std::uint32_t standing) { return standing - 1U < kPinned - 1U; }

/// Of the token in a slot; kAbsent where it is dead.
KVAST_HD inline std::uint32_t standing_in(const LayerView& layer, kvast::Block& one, int slot) {
  const std::uint32_t live = one.live;
  const float rank = layer.ranks_of(one)[slot];  // read in any case: it need not wait for `live`
  return (live >> slot & 1U) != 0 ? standing_of(rank) : kAbsent;
}

/// The least and the greatest of some numbers; where there are none, low > high.
struct Range {
  std::uint32_t low = kAbsent;
  std::uint32_t high = 0;

  KVAST_HD void add(Range other) {
    low = least_of(low, other.low);
    high = most_of(high, other.high);
  }
};

/// What is known of the tokens of a warp, or of a head.
struct Tally {
  int open = 0;
  int pinned = 0;
  Range range;  ///< standings of the open ones
};

/// Of all warps, from theirs: numbers are equal in a warp's lanes, ranges differ. Every thread of
/// the block takes part. `shared` has room for a Tally per warp, and may be used for something else
/// afterwards.
template <class Block>
KVAST_HD Tally block_tally(const Block& block, Tally mine, Tally* shared) {
  const auto warp = block.warp();
  mine.range.low = ~warp_max(warp, ~mine.range.low);
  mine.range.high = warp_max(warp, mine.range.high);
  if (warp.lane() == 0) shared[block.warp_index()] = mine;
  block.sync();
  Tally all;
  for (int at = 0; at < block.warps(); ++at) {
    all.open += shared[at].open;
    all.pinned += shared[at].pinned;
    all.range.add(shared[at].range);
  }
  block.sync();
  return all;
}

/// Reads all ranks of a head once. Warps call visit(index, standing) for each of its blocks, lane
/// by lane for each slot. Under the conditions of block_tally.
template <class Block, class Visit>
KVAST_HD Tally survey(const Block& block, const LayerView& layer, const Head& head, Tally* shared,
                      const Visit& visit) {
  constexpr int kTogether = 4;  // blocks whose loads are in flight at once
  const auto warp = block.warp();
  const int lane = warp.lane();
  Tally mine;
  for (int first = block.warp_index(); first < head.blocks(); first += kTogether * block.warps()) {
    std::uint32_t standings[kTogether];
    for (int at = 0; at < kTogether; ++at) {
      const int index = first + at * block.warps();
      standings[at] = index < head.blocks() ? standing_in(layer, head.block(index), lane) : kAbsent;
    }
    for (int at = 0; at < kTogether; ++at) {
      const int index = first + at * block.warps();
      if (index >= head.blocks()) break;
      const std::uint32_t standing = standings[at];
      const bool open = is_open(standing);
      if (open) mine.range.add({standing, standing});
      mine.open += count_bits(warp.ballot(open));
      mine.pinned += count_bits(warp.ballot(standing == kPinned));
      visit(index, standing);
    }
  }
  return block_tally(block, mine, shared);
}

}  // namespace kvast::gpu
